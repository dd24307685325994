"""The ledger's tables. A change here needs a migration in `lake/migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

metadata = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in, aware UTC datetimes out: SQLite alone would lose the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002  # SQLAlchemy's signature
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"got the naive time {value}, expected one with a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002  # SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


objects = Table(
    "objects",
    metadata,
    Column("bucket", String(255), primary_key=True),
    Column("key", String(1024), primary_key=True),
    Column("etag", String(128), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("last_modified", UtcDateTime, nullable=False),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Column("drop_id", String(32), ForeignKey("drops.drop_id"), nullable=True),
    # seen, assigned (to a drop), deleted (before it was), unread (its drop could not read it), erased
    Column("state", String(16), nullable=False),
    Column("gone_at", UtcDateTime, nullable=True),  # no longer listed: deleted, or overwritten by another version
    Column("n_unread", Integer, nullable=False, server_default="0"),  # drops that could not read it
    Column("message", Text, nullable=True),
    Index("ix_objects_model_state", "model", "state"),
    Index("ix_objects_drop", "drop_id"),
)

drops = Table(
    "drops",
    metadata,
    Column("drop_id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    # closed, preparing, waiting (prepared and checked, not trained on yet), training, trained, refused, poison,
    # erased (nothing is left of it)
    Column("state", String(16), nullable=False),
    Column("closed_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("owner", String(128), nullable=True),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_before", UtcDateTime, nullable=True),  # back-off after a failed attempt
    Column("dataset_id", String(32), nullable=True),
    Column("message", Text, nullable=True),
    Index("ix_drops_model_state", "model", "state"),
)

wakeups = Table(
    "wakeups",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("bucket", String(255), nullable=False),
    Column("key", String(1024), nullable=False),
    Column("source", String(16), nullable=False),  # sqs, webhook
    Column("received_at", UtcDateTime, nullable=False),
    sqlite_autoincrement=True,  # a number that is free again must not be given to a newer wake-up
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("owner", String(128), primary_key=True),
    Column("beat", BigInteger, nullable=False),  # grows; how long it stands still is told by the observer's clock
)

stage_attempts = Table(
    "stage_attempts",
    metadata,
    Column("stage_id", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("model", String(64), nullable=False),
    Column("subject", String(64), nullable=True),  # what the stage works on, where its inputs say more than that
    Column("prefix", String(1024), nullable=False, unique=True),
    Column("state", String(16), nullable=False),  # open, committed, superseded, swept
    Column("started_at", UtcDateTime, nullable=False),
    Index("ix_stage_attempts_state", "state"),
)

stages = Table(
    "stages",
    metadata,
    Column("stage_id", String(32), primary_key=True),
    Column("stage", String(32), nullable=False),
    Column("model", String(64), nullable=False),
    Column("manifest_key", String(1024), nullable=False),
    Column("record", JSON, nullable=False),
    Column("committed_at", UtcDateTime, nullable=False),
    Column("duration_s", Float, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", String(16), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("training_key", String(64), nullable=False),
    # candidate, rejected, failed, ready, challenger, champion, retired, rolled_back, erased (its artifacts are deleted)
    Column("state", String(16), nullable=False),
    Column("reason", String(32), nullable=False),  # what caused the training: drop, drift, erasure or manual
    Column("dataset_ids", JSON, nullable=False),
    Column("parent", String(16), nullable=True),
    Column("message", Text, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("live_at", UtcDateTime, nullable=True),
    UniqueConstraint("model", "number"),
    UniqueConstraint("model", "training_key"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("version", String(16), primary_key=True),
    Column("tag", String(128), nullable=False),
    Column("port", Integer, nullable=False, unique=True),
    Column("environment", JSON, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout_id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("challenger", String(16), nullable=False),
    Column("champion", String(16), nullable=True),
    Column("plan", JSON, nullable=False),
    Column("step_index", Integer, nullable=False),  # -1: waiting for the challenger to be ready
    # running, promoted, rolled_back; undone (promoted, and taken back by an operator); ended (an experiment)
    Column("state", String(16), nullable=False),
    Column("kind", String(16), nullable=False, server_default="release"),  # release, experiment
    Column("experiment", JSON, nullable=True),  # as it was asked for
    Column("evidence", JSON, nullable=True),  # what has been counted and tested so far
    Column("revision", Integer, nullable=False, server_default="0"),  # of the evidence
    Column("approved_step", Integer, nullable=False, server_default="-1"),  # an operator lets it go beyond this step
    Column("started_at", UtcDateTime, nullable=False),
    Column("entered_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    Column("retain_until", UtcDateTime, nullable=True),  # the champion before stays as it is until then
    Column("cool_until", UtcDateTime, nullable=True),  # rolled back: no other challenger begins before that
    Index("ix_rollouts_state", "state"),
)

rollout_decisions = Table(
    "rollout_decisions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout_id", String(64), ForeignKey("rollouts.rollout_id"), nullable=False),
    Column("record", JSON, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
)

rollout_looks = Table(
    "rollout_looks",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout_id", String(64), ForeignKey("rollouts.rollout_id"), nullable=False),
    Column("record", JSON, nullable=False),
    Index("ix_rollout_looks_rollout", "rollout_id"),
)

rollout_observations = Table(
    "rollout_observations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("rollout_id", String(64), ForeignKey("rollouts.rollout_id"), nullable=False),
    Column("step_index", Integer, nullable=False),
    Column("metric", String(64), nullable=False),
    Column("record", JSON, nullable=False),
    Index("ix_rollout_observations_rollout", "rollout_id"),
    sqlite_autoincrement=True,  # read once, in this order
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(128), nullable=True),
    Column("token", BigInteger, nullable=False),  # grows with every holder
    Column("beat", BigInteger, nullable=False),  # grows while it is held; observers time its standstill themselves
)

alarms = Table(
    "alarms",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("subject", String(128), nullable=False),  # what it is about; one alarm at a time
    Column("message", Text, nullable=False),
    Column("raised_at", UtcDateTime, nullable=False),
    Column("cleared_at", UtcDateTime, nullable=True),
    Index("ix_alarms_subject", "subject"),
)

drift_windows = Table(
    "drift_windows",
    metadata,
    Column("drift_id", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", String(16), nullable=False),
    Column("number", Integer, nullable=False),
    Column("record", JSON, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("retrained", Integer, nullable=False, default=0),
    UniqueConstraint("model", "version", "number"),
)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # open, done
    Column("subjects", JSON, nullable=False),  # as they were named, the first ones of many; never text
    Column("n_subjects", Integer, nullable=False),
    Column("requested_by", String(128), nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("rebuild", String(8), nullable=False),  # the recipe's policy at that time: next, now, never
    Column("found", JSON, nullable=False),  # counts, ids and keys
    Column("owner", String(128), nullable=True),  # the process that works on it
    Column("held_until", UtcDateTime, nullable=True),
    Column("done_at", UtcDateTime, nullable=True),
    Index("ix_erasures_model_state", "model", "state"),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("kind", String(16), primary_key=True),  # document (its id), text (the exact hash of its words)
    Column("value", String(64), primary_key=True),
    Column("erasure_id", String(32), ForeignKey("erasures.erasure_id"), nullable=False),
)

replacements = Table(
    "replacements",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("replaced_by", String(32), nullable=False, unique=True),
    Column("erasure_ids", JSON, nullable=False),
    Column("n_documents", Integer, nullable=False),  # kept ones that are left out
    Column("n_left", Integer, nullable=False),
    Column("replaced_at", UtcDateTime, nullable=False),
    Index("ix_replacements_model", "model"),
)

taints = Table(
    "taints",
    metadata,
    Column("erasure_id", String(32), ForeignKey("erasures.erasure_id"), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("version", String(16), primary_key=True),
    Column("rebuild", String(8), nullable=False),
    Column("purged_at", UtcDateTime, nullable=True),
)
