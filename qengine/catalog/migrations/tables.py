"""The registry's tables as they are in the newest version; a test compares them with what the revisions make."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)

CATALOGS = Table(
    "catalogs",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("folded_name", String(128), nullable=False, unique=True),  # names are unique without regard to case
    Column("latest", Integer, nullable=False),
)

LOADS = Table(
    "loads",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("context", Text, nullable=False),
    Column("started", DateTime, nullable=False),
    Column("finished", DateTime),
    Column("error", Text, nullable=False),
    Column("number", Integer, nullable=False, unique=True),  # of all catalogues together; the hidden column `_load`
    Column("catalog", String(128), nullable=False),
    Column("snapshot", Integer),
)

# What loads have read; `number` is the hidden column `_input`. `replaced_by` is the load that took the input's rows away.
INPUTS = Table(
    "inputs",
    METADATA,
    Column("load", Integer, ForeignKey("loads.number"), primary_key=True, autoincrement=False),
    Column("table_name", String(128), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("catalog", String(128), nullable=False),
    Column("label", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("uri", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("rows_read", BigInteger, nullable=False),
    Column("rows_stored", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("rows_filtered", BigInteger, nullable=False),
    Column("rows_skipped", BigInteger, nullable=False),
    Column("coverage", LargeBinary, nullable=False),
    Column("replaced_by", Integer, ForeignKey("loads.number")),
    Index("ix_inputs_catalog", "catalog", "table_name"),
)

# `id` only ever grows (AUTOINCREMENT): its maximum tells every process whether anything was published since it looked.
SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("catalog", String(128), ForeignKey("catalogs.name"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("load_id", String(32), nullable=False),
    Column("published", DateTime, nullable=False),
    UniqueConstraint("catalog", "number"),
    sqlite_autoincrement=True,
)

SNAPSHOT_TABLES = Table(
    "snapshot_tables",
    METADATA,
    Column("snapshot_id", Integer, ForeignKey("snapshots.id"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("manifest_uri", Text, nullable=False),
    Column("manifest_digest", String(64), nullable=False),
    Column("definition", Text, nullable=False),
)

RATES = Table(
    "rates",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("value", Float, nullable=False),
    Column("weight_s", Float, nullable=False),
    Column("updated", DateTime, nullable=False),
)

TAGS = Table(
    "tags",
    METADATA,
    Column("catalog", String(128), ForeignKey("catalogs.name"), primary_key=True),
    Column("folded_name", String(128), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("number", Integer, nullable=False),
    Column("doi", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("made", DateTime, nullable=False),
)

# A catalogue without a row is released. `groups` is a JSON list of those that may read it while it is internal.
CATALOG_STATES = Table(
    "catalog_states",
    METADATA,
    Column("catalog", String(128), ForeignKey("catalogs.name"), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("groups", Text, nullable=False),
    Column("changed", DateTime, nullable=False),
)

EXPIRED = Table(
    "expired",
    METADATA,
    Column("catalog", String(128), ForeignKey("catalogs.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", DateTime, nullable=False),
)

# Who reads which snapshot, until when; renewed by those who still do.
LEASES = Table(
    "leases",
    METADATA,
    Column("holder", String(64), primary_key=True),
    Column("catalog", String(128), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("until", DateTime, nullable=False),
)

# Bytes that a catalogue may take; of the empty name: the whole store.
BUDGETS = Table(
    "budgets",
    METADATA,
    Column("catalog", String(128), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

# Asynchronous queries (`catalog.jobs`). `holder` runs the job under `epoch` until its lease runs out.
JOBS = Table(
    "jobs",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("created", DateTime, nullable=False),
    Column("queued", DateTime),
    Column("started", DateTime),
    Column("ended", DateTime),
    Column("destruction", DateTime, nullable=False),
    Column("quote", DateTime),
    Column("duration_s", BigInteger, nullable=False),
    Column("identity", Text, nullable=False),
    Column("parameters", Text, nullable=False),
    Column("uploads", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("progress", Text, nullable=False),
    Column("holder", String(128), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("lease_until", DateTime),
    Index("ix_jobs_owner", "owner", "created"),
    Index("ix_jobs_phase", "phase"),
    Index("ix_jobs_destruction", "destruction"),
)

# Users (`catalog.users`). Names are in lower case. `password` is empty, or parameters, salt and hash of scrypt.
USERS = Table(
    "users",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("password", Text, nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("is_disabled", Boolean, nullable=False),
    Column("made", DateTime, nullable=False),
)

# Who belongs to which group here; of users whom somebody else vouches for, too, so that a name need not be in `users`.
MEMBERS = Table(
    "members",
    METADATA,
    Column("user_name", String(128), primary_key=True),
    Column("group_name", String(128), primary_key=True),
)

# `hash` is the SHA-256 of the token, which is random and long; the token itself is nowhere.
TOKENS = Table(
    "tokens",
    METADATA,
    Column("id", String(16), primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("owner", String(128), ForeignKey("users.name"), nullable=False),
    Column("label", Text, nullable=False),
    Column("made", DateTime, nullable=False),
    Column("expires", DateTime),
    Column("used", DateTime),
    Index("ix_tokens_owner", "owner"),
)

# Who may read what (`catalog.rights`). `grantee` is public, group:<name> or user:<name>; an empty table is the whole catalogue.
GRANTS = Table(
    "grants",
    METADATA,
    Column("folded_catalog", String(128), primary_key=True),
    Column("folded_table", String(128), primary_key=True),
    Column("grantee", String(160), primary_key=True),
    Column("catalog", String(128), nullable=False),
    Column("table_name", String(128), nullable=False),
    Column("made", DateTime, nullable=False),
)

# Every change of users, tokens, groups, grants and states. The largest `id` tells every process whether anything has changed.
RIGHTS_CHANGES = Table(
    "rights_changes",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", DateTime, nullable=False),
    Column("by_whom", String(256), nullable=False),
    Column("what", Text, nullable=False),
    sqlite_autoincrement=True,
)

# The log of queries (`catalog.query_log`).
QUERIES = Table(
    "queries",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False),
    Column("user_name", String(128), nullable=False),
    Column("method", String(32), nullable=False),
    Column("client", Text, nullable=False),
    Column("language", String(32), nullable=False),
    Column("statement", Text, nullable=False),
    Column("started", DateTime, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("row_count", BigInteger, nullable=False),
    Column("byte_count", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("error", Text, nullable=False),
    Column("snapshots", Text, nullable=False),
    Index("ix_queries_user", "user_name", "started"),
    Index("ix_queries_started", "started"),
    sqlite_autoincrement=True,
)

# How many queries of whom run or wait at each process (`catalog.demand`). The row without a name says that the process lives.
DEMANDS = Table(
    "demands",
    METADATA,
    Column("process", String(64), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("queries", Integer, nullable=False),
    Column("told", DateTime, nullable=False),
)
