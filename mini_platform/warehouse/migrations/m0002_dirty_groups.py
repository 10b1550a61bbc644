"""Marks of changed groups name who is to compute them, as aggregates are not the only ones who may."""

from mini_platform.warehouse.migrations.migration import Migration

MIGRATION = Migration(
    2,
    "marks of changed groups are for any consumer",
    """
ALTER TABLE ops.touched RENAME TO dirty_groups;
ALTER TABLE ops.dirty_groups RENAME COLUMN touch_id TO mark_id;
ALTER TABLE ops.dirty_groups RENAME COLUMN aggregate TO consumer;
ALTER TABLE ops.dirty_groups RENAME CONSTRAINT touched_pkey TO dirty_groups_pkey;
ALTER SEQUENCE ops.touched_touch_id_seq RENAME TO dirty_groups_mark_id_seq;
UPDATE ops.dirty_groups SET consumer = 'aggregate:' || consumer;
""",
)
