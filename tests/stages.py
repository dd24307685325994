"""Committed stages for tests of what comes after them."""

from __future__ import annotations

from lake.ledger import Ledger
from lake.records import Record


def commit_record(ledger: Ledger, stage: str, model: str, identity: str, record: Record) -> None:
    """Enter a stage as done, as if its only attempt had built it."""
    attempt = ledger.stages.begin(identity, model, f"{stage}/{model}/{identity}/")
    assert attempt is not None
    assert ledger.stages.commit(
        attempt,
        stage=stage,
        manifest_key=f"{attempt.prefix}manifest.json",
        record=record.model_dump(mode="json"),
        duration_s=1.0,
    )
