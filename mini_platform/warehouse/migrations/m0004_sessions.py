"""Sessions of the dashboard are rows: a cookie was valid for a week, whatever anybody did."""

from mini_platform.warehouse.migrations.migration import Migration

MIGRATION = Migration(
    4,
    "sessions of the dashboard can be ended",
    """
CREATE TABLE ops.sessions (
    session_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id bigint NOT NULL,
    sha256 text NOT NULL UNIQUE,
    opened_at timestamptz DEFAULT now() NOT NULL,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    ended_at timestamptz
);
""",
)
