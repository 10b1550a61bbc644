"""Columns and tables that were called in words of our own take those of the trade; `docs/renames.md` has them all."""

from mini_platform.warehouse.migrations.migration import Migration

MIGRATION = Migration(
    3,
    "columns are called as the glossary has them",
    """
ALTER TABLE ops.files RENAME COLUMN door TO channel;
ALTER TABLE ops.files RENAME COLUMN set_aside_at TO deferred_at;
ALTER TABLE ops.files RENAME COLUMN extra_columns TO unexpected_columns;
ALTER TABLE ops.files RENAME COLUMN absent_columns TO missing_columns;
UPDATE ops.files SET channel = 'api:' || substr(channel, 6) WHERE channel LIKE 'pull:%';
ALTER TABLE ops.inbox_files RENAME COLUMN left_alone TO skip_reason;
ALTER TABLE ops.checkpoints RENAME COLUMN crawl TO sync;
ALTER TABLE ops.pages RENAME COLUMN crawl TO sync;
ALTER TABLE ops.incidents RENAME COLUMN said TO message;
ALTER TABLE ops.dropping RENAME TO pending_deletes;
ALTER TABLE ops.pending_deletes RENAME CONSTRAINT dropping_pkey TO pending_deletes_pkey;
""",
)
