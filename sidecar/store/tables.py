"""The SQL schema, once, for both dialects. Alembic's migrations build exactly this (a test
compares). Quantities are scaled integers; money is decimal text; times are milliseconds since the
epoch. Ledger and events have no foreign keys, so that a record can always be applied."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()
BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only for INTEGER keys

settings = Table(
    "settings",  # partition_count, catalog_version, clock_offset_ms
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

partitions = Table(
    "partitions",
    metadata,
    Column("p", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("cursor_gen", BigInteger, nullable=False, server_default="0"),
    Column("cursor_seq", BigInteger, nullable=False, server_default="-1"),
    Column("keys_lost_until_ms", BigInteger, nullable=False, server_default="0"),
)

features = Table(
    "features",
    metadata,
    Column("id", String(256), primary_key=True),
    Column("name", Text, nullable=False),
    Column("type", String(32), nullable=False),
    Column("precision", Integer, nullable=False, server_default="6"),
    Column("display", JSON),
    Column("credit_schema", JSON),  # [{metered_feature_id, credit_cost: decimal text}]
    Column("event_names", JSON),
    Column("archived", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", BigInteger, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("uid", BigId, primary_key=True, autoincrement=True),
    Column("id", String(256), nullable=False),
    Column("version", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("group_id", String(256), nullable=False, server_default=text("''")),
    Column("is_default", Boolean, nullable=False, server_default=text("false")),
    Column("is_add_on", Boolean, nullable=False, server_default=text("false")),
    Column("archived", Boolean, nullable=False, server_default=text("false")),
    Column("items", JSON, nullable=False),
    Column("free_trial", JSON),
    Column("billing_controls", JSON),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("id", "version", name="plans_id_version"),
)

customers = Table(
    "customers",
    metadata,
    Column("cid", BigId, primary_key=True, autoincrement=True),
    Column("id", String(256), nullable=False),
    Column("p", Integer, nullable=False),
    Column("name", Text),
    Column("email", Text),
    Column("fingerprint", Text),
    Column("stripe_id", Text),
    Column("metadata", JSON, nullable=False),
    Column("payment_method", JSON),
    Column("created_at", BigInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Column("structure_version", BigInteger, nullable=False, server_default="0"),
    Column("applied_version", BigInteger, nullable=False, server_default="0"),
    Column("next_bucket_no", BigInteger, nullable=False, server_default="1"),
    Column("last_ms", BigInteger, nullable=False, server_default="0"),
    Column("log_gen", BigInteger, nullable=False, server_default="0"),  # last record applied
    Column("log_seq", BigInteger, nullable=False, server_default="-1"),
    Column("gone", Boolean, nullable=False, server_default=text("false")),  # deleted, and no trace left in Redis
    Column("billing_controls", JSON),
    Column("next_roll_no", BigInteger, nullable=False, server_default=text("2147483648")),
    Index(
        "customers_live_id", "id", unique=True,
        sqlite_where=text("deleted_at IS NULL"), postgresql_where=text("deleted_at IS NULL"),
    ),
    Index("customers_deleted", "cid", sqlite_where=text("deleted_at IS NOT NULL AND NOT gone"),
          postgresql_where=text("deleted_at IS NOT NULL AND NOT gone")),
    Index("customers_by_log", "p", "log_gen", "log_seq"),
    Index("customers_pending", "p", sqlite_where=text("structure_version > applied_version"),
          postgresql_where=text("structure_version > applied_version")),
    sqlite_autoincrement=True,  # a cid is never given twice
)

customer_plans = Table(
    "customer_plans",
    metadata,
    Column("uid", BigId, primary_key=True, autoincrement=True),
    Column("cid", BigInteger, nullable=False),
    Column("plan_uid", BigInteger, nullable=False),
    Column("plan_id", String(256), nullable=False),
    Column("entity_id", String(256)),
    Column("status", String(16), nullable=False),
    Column("quantity", Integer, nullable=False, server_default="1"),
    Column("options", JSON, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("canceled_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("anchor", BigInteger, nullable=False),
    Index("customer_plans_by_customer", "cid"),
)

entities = Table(
    "entities",
    metadata,
    Column("uid", BigId, primary_key=True, autoincrement=True),
    Column("cid", BigInteger, nullable=False),
    Column("id", String(256), nullable=False),
    Column("name", Text),
    Column("feature_id", String(256), nullable=False),
    Column("status", String(16), nullable=False),  # pending, active
    Column("applied", Boolean, nullable=False, server_default=text("false")),  # in Redis' log
    Column("created_at", BigInteger, nullable=False),
    Column("billing_controls", JSON),
    Column("version", BigInteger, nullable=False, server_default="0"),  # of the step that opens it
    UniqueConstraint("cid", "id", name="entities_cid_id"),
)

LASTING = "removed_at IS NULL AND NOT archived AND \"interval\" = 0 AND expires_at = 0 AND (flags & 363) = 0"
"""Buckets that neither reset nor expire and hold a plain amount (layout.py: of all flags only ADD_ON,
PREPAID and PAID): once used up they may leave the hot state. No balance in it: an index whose
condition has one would make every change of a balance a change of the index."""

buckets = Table(
    "buckets",
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("no", BigInteger, primary_key=True, autoincrement=False),
    Column("feature_id", String(256), nullable=False),
    Column("customer_plan_uid", BigInteger),
    Column("balance", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("flags", Integer, nullable=False),
    Column("purchasable", BigInteger, nullable=False),
    Column("next_reset_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("anchor", BigInteger, nullable=False),
    Column("interval", Integer, nullable=False),
    Column("interval_count", Integer, nullable=False),
    Column("entity_id", String(256), nullable=False),
    Column("plan_id", String(256), nullable=False),
    Column("prepaid", BigInteger, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("slots", BigInteger, nullable=False),
    Column("over", BigInteger, nullable=False),
    Column("entity_feature", String(256), nullable=False),
    Column("removed_at", BigInteger),
    Column("parent", BigInteger, nullable=False, server_default="0"),
    Column("roll_length", Integer, nullable=False, server_default="-1"),
    Column("roll_max", BigInteger, nullable=False, server_default="-1"),
    Column("roll_percent", BigInteger, nullable=False, server_default="-1"),
    Column("reset_at", BigInteger, nullable=False, server_default="0"),
    Column("reset_over", BigInteger, nullable=False, server_default="0"),
    Column("held", BigInteger, nullable=False, server_default="0"),
    Column("archived", Boolean, nullable=False, server_default=text("false")),  # used up, and left the hot state
    Index("buckets_due", "next_reset_at",
          sqlite_where=text("removed_at IS NULL AND next_reset_at > 0"),
          postgresql_where=text("removed_at IS NULL AND next_reset_at > 0")),
    Index("buckets_expiring", "expires_at",
          sqlite_where=text("removed_at IS NULL AND expires_at > 0"),
          postgresql_where=text("removed_at IS NULL AND expires_at > 0")),
    Index("buckets_lasting", "cid", "no", sqlite_where=text(LASTING), postgresql_where=text(LASTING)),
)

balance_ids = Table(
    "balance_ids",  # what callers call grants of their own making; free again once the bucket is gone
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(256), primary_key=True),
    Column("no", BigInteger, nullable=False),
)

slots = Table(
    "slots",
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("no", BigInteger, primary_key=True, autoincrement=False),
    Column("entity_id", String(256), primary_key=True),
    Column("balance", BigInteger, nullable=False),
    Column("period", BigInteger, nullable=False),
    Column("granted", BigInteger, nullable=False, server_default="0"),
    Column("held", BigInteger, nullable=False, server_default="0"),
)

caps = Table(
    "caps",  # in force, as the scripts read them
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("feature_id", String(256), primary_key=True),
    Column("entity_id", String(256), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

windows = Table(
    "windows",  # counters of usage limits
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("feature_id", String(256), primary_key=True),
    Column("entity_id", String(256), primary_key=True),
    Column("interval", Integer, primary_key=True, autoincrement=False),
    Column("anchor", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
)

holds = Table(
    "holds",
    metadata,
    Column("p", Integer, primary_key=True, autoincrement=False),
    Column("gen", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("cid", BigInteger, nullable=False),
    Column("lock_id", String(256), nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),  # open, confirmed, released, expired
    Column("final", BigInteger),
    Column("settled_at", BigInteger),
    Column("receipt", LargeBinary, nullable=False),
    Index("holds_by_lock", "lock_id"),
    Index("holds_open", "cid", sqlite_where=text("status = 'open'"), postgresql_where=text("status = 'open'")),
    Index("holds_due", "expires_at", sqlite_where=text("status = 'open'"), postgresql_where=text("status = 'open'")),
)

refunds = Table(
    "refunds",  # how much of an event was given back
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("gen", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("returned", LargeBinary, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("step", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("p", Integer, primary_key=True, autoincrement=False),
    Column("gen", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("cid", BigInteger, nullable=False),
    Column("customer_id", String(256), nullable=False),
    Column("entity_id", String(256), nullable=False),
    Column("feature_id", String(256), nullable=False),
    Column("event_name", Text),
    Column("value", Text, nullable=False),  # as it was sent
    Column("requested", BigInteger, nullable=False),
    Column("applied", BigInteger, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Column("properties", JSON),
    Column("idempotency_key", Text),
    Column("parts", LargeBinary),  # what each bucket paid, in order
    Column("refund_of", String(64)),  # the event given back
    Index("events_by_customer", "cid", "recorded_at"),
    Index("events_by_key", "cid", "idempotency_key", sqlite_where=text("idempotency_key IS NOT NULL"),
          postgresql_where=text("idempotency_key IS NOT NULL")),
)

ledger = Table(
    "ledger",
    metadata,
    Column("p", Integer, primary_key=True, autoincrement=False),
    Column("gen", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("cid", BigInteger, nullable=False),
    Column("no", BigInteger, nullable=False),
    Column("feature_id", String(256)),
    Column("entity_id", String(256), nullable=False),
    Column("kind", String(16), nullable=False),  # see events.LedgerLine
    Column("delta", BigInteger, nullable=False),
    Column("over_units", BigInteger, nullable=False, server_default="0"),
    Column("units", Text),  # over_units as a decimal
    Column("price", Text),  # decimal text per billing_units
    Column("billing_units", Text),
    Column("amount", Text),  # decimal text
    Column("period_end", BigInteger),
    Column("at", BigInteger, nullable=False),
    Index("ledger_by_customer", "cid", "at"),
    Index("ledger_reset_once", "cid", "no", "period_end", unique=True,
          sqlite_where=text("kind = 'reset'"), postgresql_where=text("kind = 'reset'")),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("cid", BigInteger, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary(16), primary_key=True),
    Column("p", Integer, nullable=False),
    Column("gen", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("record", LargeBinary, nullable=False),
    Index("idempotency_by_end", "expires_at"),
)

checkouts = Table(
    "checkouts",
    metadata,
    Column("token", String(64), primary_key=True),
    Column("cid", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),  # open, paid, cancelled
    Column("request", JSON, nullable=False),
    Column("preview", JSON, nullable=False),
    Column("success_url", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
)

sync_rejected = Table(
    "sync_rejected",
    metadata,
    Column("p", Integer, primary_key=True, autoincrement=False),
    Column("gen", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)
