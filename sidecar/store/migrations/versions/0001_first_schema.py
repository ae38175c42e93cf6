"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def big_id() -> sa.types.TypeEngine[int]:
    """A 64-bit key that both dialects number by themselves."""
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "partitions",
        sa.Column("p", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("cursor_gen", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("cursor_seq", sa.BigInteger, nullable=False, server_default="-1"),
        sa.Column("keys_lost_until_ms", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "features",
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("precision", sa.Integer, nullable=False, server_default="6"),
        sa.Column("display", sa.JSON),
        sa.Column("credit_schema", sa.JSON),
        sa.Column("event_names", sa.JSON),
        sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "plans",
        sa.Column("uid", big_id(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(256), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("group_id", sa.String(256), nullable=False, server_default=sa.text("''")),
        sa.Column("is_default", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("is_add_on", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("archived", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("items", sa.JSON, nullable=False),
        sa.Column("free_trial", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("id", "version", name="plans_id_version"),
    )
    op.create_table(
        "customers",
        sa.Column("cid", big_id(), primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(256), nullable=False),
        sa.Column("p", sa.Integer, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("email", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("stripe_id", sa.Text),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("payment_method", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("structure_version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("applied_version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("next_bucket_no", sa.BigInteger, nullable=False, server_default="1"),
        sa.Column("last_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("log_gen", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("log_seq", sa.BigInteger, nullable=False, server_default="-1"),
        sa.Column("gone", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Index("customers_deleted", "cid", sqlite_where=sa.text("deleted_at IS NOT NULL AND NOT gone"),
                 postgresql_where=sa.text("deleted_at IS NOT NULL AND NOT gone")),
        sa.Index("customers_by_log", "p", "log_gen", "log_seq"),
        sa.Index(
            "customers_live_id", "id", unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"), postgresql_where=sa.text("deleted_at IS NULL"),
        ),
        sa.Index("customers_pending", "p", sqlite_where=sa.text("structure_version > applied_version"),
              postgresql_where=sa.text("structure_version > applied_version")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "customer_plans",
        sa.Column("uid", big_id(), primary_key=True, autoincrement=True),
        sa.Column("cid", sa.BigInteger, nullable=False),
        sa.Column("plan_uid", sa.BigInteger, nullable=False),
        sa.Column("plan_id", sa.String(256), nullable=False),
        sa.Column("entity_id", sa.String(256)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False, server_default="1"),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("canceled_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("anchor", sa.BigInteger, nullable=False),
        sa.Index("customer_plans_by_customer", "cid"),
    )
    op.create_table(
        "entities",
        sa.Column("uid", big_id(), primary_key=True, autoincrement=True),
        sa.Column("cid", sa.BigInteger, nullable=False),
        sa.Column("id", sa.String(256), nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("feature_id", sa.String(256), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("applied", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("cid", "id", name="entities_cid_id"),
    )
    op.create_table(
        "buckets",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("no", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("feature_id", sa.String(256), nullable=False),
        sa.Column("customer_plan_uid", sa.BigInteger),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.Column("flags", sa.Integer, nullable=False),
        sa.Column("purchasable", sa.BigInteger, nullable=False),
        sa.Column("next_reset_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("anchor", sa.BigInteger, nullable=False),
        sa.Column("interval", sa.Integer, nullable=False),
        sa.Column("interval_count", sa.Integer, nullable=False),
        sa.Column("entity_id", sa.String(256), nullable=False),
        sa.Column("plan_id", sa.String(256), nullable=False),
        sa.Column("prepaid", sa.BigInteger, nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("slots", sa.BigInteger, nullable=False),
        sa.Column("over", sa.BigInteger, nullable=False),
        sa.Column("entity_feature", sa.String(256), nullable=False),
        sa.Column("removed_at", sa.BigInteger),
        sa.Index("buckets_due", "next_reset_at",
              sqlite_where=sa.text("removed_at IS NULL AND next_reset_at > 0"),
              postgresql_where=sa.text("removed_at IS NULL AND next_reset_at > 0")),
    )
    op.create_table(
        "slots",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("no", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("entity_id", sa.String(256), primary_key=True),
        sa.Column("balance", sa.BigInteger, nullable=False),
        sa.Column("period", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("step", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("p", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gen", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cid", sa.BigInteger, nullable=False),
        sa.Column("customer_id", sa.String(256), nullable=False),
        sa.Column("entity_id", sa.String(256), nullable=False),
        sa.Column("feature_id", sa.String(256), nullable=False),
        sa.Column("event_name", sa.Text),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("requested", sa.BigInteger, nullable=False),
        sa.Column("applied", sa.BigInteger, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("properties", sa.JSON),
        sa.Column("idempotency_key", sa.Text),
        sa.Index("events_by_customer", "cid", "recorded_at"),
    )
    op.create_table(
        "ledger",
        sa.Column("p", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gen", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cid", sa.BigInteger, nullable=False),
        sa.Column("no", sa.BigInteger, nullable=False),
        sa.Column("feature_id", sa.String(256)),
        sa.Column("entity_id", sa.String(256), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("delta", sa.BigInteger, nullable=False),
        sa.Column("over_units", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("units", sa.Text),
        sa.Column("price", sa.Text),
        sa.Column("billing_units", sa.Text),
        sa.Column("amount", sa.Text),
        sa.Column("period_end", sa.BigInteger),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Index("ledger_by_customer", "cid", "at"),
        sa.Index("ledger_reset_once", "cid", "no", "period_end", unique=True,
              sqlite_where=sa.text("kind = 'reset'"), postgresql_where=sa.text("kind = 'reset'")),
    )
    op.create_table(
        "idempotency",
        sa.Column("cid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.LargeBinary(16), primary_key=True),
        sa.Column("p", sa.Integer, nullable=False),
        sa.Column("gen", sa.BigInteger, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Index("idempotency_by_end", "expires_at"),
    )
    op.create_table(
        "checkouts",
        sa.Column("token", sa.String(64), primary_key=True),
        sa.Column("cid", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("preview", sa.JSON, nullable=False),
        sa.Column("success_url", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
    )
    op.create_table(
        "sync_rejected",
        sa.Column("p", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("gen", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "sync_rejected",
        "checkouts",
        "idempotency",
        "ledger",
        "events",
        "outbox",
        "slots",
        "buckets",
        "entities",
        "customer_plans",
        "customers",
        "plans",
        "features",
        "partitions",
        "settings",
    ):
        op.drop_table(table)
