"""Versions: allocated once per training, and one champion at a time."""

from __future__ import annotations

from functools import partial

from lake.ledger import Ledger
from lake.ledger.versions import Version
from tests.concurrently import concurrently


def allocate(ledger: Ledger, key: str, model: str = "docs") -> Version:
    return ledger.versions.allocate(model=model, training_key=key, reason="drop", dataset_ids=("d1", "d2"), parent=None)


def states(ledger: Ledger, model: str = "docs") -> dict[str, str]:
    return {found.version: found.state for found in ledger.versions.all(model)}


def test_the_same_training_is_the_same_version(ledger: Ledger) -> None:
    first = allocate(ledger, "one")
    assert (first.version, first.number, first.state, first.dataset_ids) == ("v1", 1, "candidate", ("d1", "d2"))
    assert allocate(ledger, "one") == first
    assert allocate(ledger, "two").version == "v2"
    assert allocate(ledger, "one", model="other").version == "v1"
    assert [found.version for found in ledger.versions.all("docs")] == ["v1", "v2"]
    assert len(ledger.versions.all()) == 3


def test_trainings_that_begin_at_once_get_different_versions(ledger: Ledger) -> None:
    made = concurrently([partial(allocate, ledger, f"training-{n % 4}") for n in range(8)])
    assert sorted({found.version for found in made}) == ["v1", "v2", "v3", "v4"]
    assert len({(found.version, found.training_key) for found in made}) == 4


def test_one_version_is_champion(ledger: Ledger) -> None:
    for key in ("one", "two"):
        allocate(ledger, key)
    allocate(ledger, "one", model="other")
    assert ledger.versions.champion("docs") is None
    ledger.versions.crown("docs", "v1")
    champion = ledger.versions.champion("docs")
    assert champion is not None
    assert champion.live_at is not None
    ledger.versions.crown("docs", "v1")
    assert ledger.versions.champion("docs") == champion  # again is harmless
    ledger.versions.crown("docs", "v2")
    assert states(ledger) == {"v1": "retired", "v2": "champion"}
    assert states(ledger, "other") == {"v1": "candidate"}


def test_a_state_comes_with_its_reason(ledger: Ledger) -> None:
    allocate(ledger, "one")
    assert ledger.versions.move("docs", "v1", "rejected", "perplexity 40, at most 30", expected=["candidate"])
    found = ledger.versions.get("docs", "v1")
    assert found is not None
    assert (found.state, found.message) == ("rejected", "perplexity 40, at most 30")
    assert ledger.versions.get("docs", "v9") is None


def test_a_state_moves_only_from_where_it_is_expected(ledger: Ledger) -> None:
    """A process that was paused for long finds its version live: the crown is not its to take."""
    allocate(ledger, "one")
    ledger.versions.crown("docs", "v1")
    assert not ledger.versions.move("docs", "v1", "ready", expected=["candidate", "failed"])
    champion = ledger.versions.champion("docs")
    assert champion is not None and champion.version == "v1"
    assert not ledger.versions.move("docs", "v9", "ready", expected=["candidate"])


def test_a_model_has_one_training_at_a_time(ledger: Ledger) -> None:
    allocate(ledger, "one")
    allocate(ledger, "two")
    first = ledger.versions.get("docs", "v1")
    assert first is not None
    assert (first.state, first.message) == ("failed", "superseded by v2 before it ended")
    allocate(ledger, "one")
    assert states(ledger) == {"v1": "candidate", "v2": "failed"}


def test_a_failed_version_that_is_trained_again_is_a_candidate_again(ledger: Ledger) -> None:
    allocate(ledger, "one")
    ledger.versions.move("docs", "v1", "failed", "no disk", expected=["candidate"])
    allocate(ledger, "one")
    found = ledger.versions.get("docs", "v1")
    assert found is not None
    assert (found.state, found.message) == ("candidate", None)
