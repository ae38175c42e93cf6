"""Rollovers, caps, holds, exact refunds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("plans", "customers", "entities"):
        op.add_column(table, sa.Column("billing_controls", sa.JSON))
    op.add_column(
        "customers", sa.Column("next_roll_no", sa.BigInteger, nullable=False, server_default=sa.text("2147483648"))
    )
    for name, kind, default in (
        ("parent", sa.BigInteger, "0"), ("roll_length", sa.Integer, "-1"), ("roll_max", sa.BigInteger, "-1"),
        ("roll_percent", sa.BigInteger, "-1"), ("reset_at", sa.BigInteger, "0"), ("reset_over", sa.BigInteger, "0"),
        ("held", sa.BigInteger, "0"),
    ):
        op.add_column("buckets", sa.Column(name, kind, nullable=False, server_default=default))
    op.add_column("buckets", sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.text("false")))
    expiring = sa.text("removed_at IS NULL AND expires_at > 0")
    op.create_index(
        "buckets_expiring", "buckets", ["expires_at"], sqlite_where=expiring, postgresql_where=expiring
    )
    lasting = sa.text("removed_at IS NULL AND NOT archived AND \"interval\" = 0 AND expires_at = 0 AND (flags & 363) = 0")
    op.create_index("buckets_lasting", "buckets", ["cid", "no"], sqlite_where=lasting, postgresql_where=lasting)
    for name in ("granted", "held"):
        op.add_column("slots", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("events", sa.Column("parts", sa.LargeBinary))
    op.add_column("events", sa.Column("refund_of", sa.String(64)))
    keyed = sa.text("idempotency_key IS NOT NULL")
    op.create_index(
        "events_by_key", "events", ["cid", "idempotency_key"], sqlite_where=keyed, postgresql_where=keyed
    )
    op.create_table(
        "caps",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("feature_id", sa.String(256), primary_key=True),
        sa.Column("entity_id", sa.String(256), primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "windows",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("feature_id", sa.String(256), primary_key=True),
        sa.Column("entity_id", sa.String(256), primary_key=True),
        sa.Column("interval", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("anchor", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start", sa.BigInteger, nullable=False),
        sa.Column("end", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "holds",
        sa.Column("p", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gen", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("cid", sa.BigInteger, nullable=False),
        sa.Column("lock_id", sa.String(256), nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("final", sa.BigInteger),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("receipt", sa.LargeBinary, nullable=False),
    )
    op.create_index("holds_by_lock", "holds", ["lock_id"])
    still_open = sa.text("status = 'open'")
    op.create_index("holds_open", "holds", ["cid"], sqlite_where=still_open, postgresql_where=still_open)
    op.create_index("holds_due", "holds", ["expires_at"], sqlite_where=still_open, postgresql_where=still_open)
    op.create_table(
        "refunds",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("gen", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("returned", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "balance_ids",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("no", sa.BigInteger, nullable=False),
    )
