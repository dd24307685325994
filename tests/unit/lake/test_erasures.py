"""The books of erasures and taints; tests/unit/flows/test_erase.py and test_purge.py use them on real data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from lake.ledger import Ledger
from lake.ledger.erasures import HELD_FOR, SUBJECTS_KEPT, Erasure
from lake.records import Dataset, ObjectRef
from tests.concurrently import concurrently

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = "docs"


def opened(ledger: Ledger, **changes: Any) -> Erasure:
    values: dict[str, Any] = {
        "model": MODEL,
        "subjects": ["a"],
        "keys": [],
        "documents": [],
        "texts": [],
        "rebuild": "next",
        "requested_by": "me@here",
        "owner": "host:1",
        "found": {},
        "now": NOW,
        **changes,
    }
    return ledger.erasures.open(**values)


def dataset(name: str, n_kept: int, drop_id: str = "d") -> Dataset:
    return Dataset(
        dataset_id=name,
        model=MODEL,
        drop_id=drop_id,
        prefix=f"datasets/{MODEL}/{name}/",
        history_ids=(),
        n_objects=1,
        n_read=n_kept,
        n_kept=n_kept,
        rejected={},
        redacted={},
        n_documents={"train": n_kept},
        n_characters={"train": n_kept},
    )


def drop(ledger: Ledger, name: str, state: str, dataset_id: str) -> str:
    ref = ObjectRef(bucket="b", key=f"inbox/{MODEL}/{name}", etag=name, size_bytes=1, last_modified=NOW)
    ledger.arrivals.reconcile(MODEL, [[ref]], NOW, whole=False)
    closed = ledger.arrivals.close_drop(MODEL, 0.0, NOW + timedelta(seconds=1))
    assert closed is not None
    if state != "closed":
        assert ledger.drops.move(closed.drop_id, "closed", state, NOW, dataset_id=dataset_id)
    return closed.drop_id


def test_tombstones_add_up_and_stay(ledger: Ledger) -> None:
    many = [f"{number:032x}" for number in range(1_200)]
    first = opened(ledger, documents=many, texts=[0, 2**64 - 1], subjects=many)
    second = opened(ledger, documents=[many[0], "f" * 32], texts=[0, 7])
    found = ledger.erasures.tombstones(MODEL)
    assert found.documents == {*many, "f" * 32}
    assert found.texts == {0, 7, 2**64 - 1}
    assert not ledger.erasures.tombstones("other")
    assert (len(first.subjects), first.n_subjects) == (SUBJECTS_KEPT, 1_200)
    assert ledger.erasures.covering(MODEL, [many[0]]) == {first.erasure_id}
    assert ledger.erasures.covering(MODEL, [*many, "f" * 32]) == {first.erasure_id, second.erasure_id}
    ledger.erasures.close(MODEL, [first.erasure_id, second.erasure_id], NOW)
    assert ledger.erasures.opened() == [] and len(ledger.erasures.all(MODEL)) == 2
    assert ledger.erasures.tombstones(MODEL) == found


def test_no_drop_is_claimed_while_one_is_open(ledger: Ledger) -> None:
    drop_id = drop(ledger, "x", "closed", "")
    erasure = opened(ledger)
    assert ledger.drops.next_closed(MODEL, NOW) is None
    assert ledger.drops.claim(drop_id, "me", NOW) is None
    ledger.erasures.close(MODEL, [erasure.erasure_id], NOW)
    assert ledger.drops.claim(drop_id, "me", NOW) is not None


def test_objects_are_erased_with_all_their_versions(ledger: Ledger) -> None:
    drop_id = drop(ledger, "x", "closed", "")
    key = f"inbox/{MODEL}/x"
    assert ledger.erasures.objects_left(MODEL, [key, "inbox/docs/none"]) == {key: True}
    opened(ledger, keys=[key])
    assert ledger.erasures.objects_left(MODEL, [key]) == {key: False}
    assert ledger.erasures.erased_uris(drop_id) == {f"s3://b/{key}"}
    (state,) = ledger.drops.states(MODEL)
    assert state.state == "erased" and "nothing is left of it" in (state.message or "")
    found = ledger.drops.get(drop_id)
    assert found is not None and found.objects == ()


def test_one_process_works_on_them_at_a_time(ledger: Ledger) -> None:
    erasure = opened(ledger, owner="first")

    def hold(owner: str, at: datetime, gone: bool = False) -> list[str]:
        return [found.erasure_id for found in ledger.erasures.hold(MODEL, owner, at, lambda _: gone)]

    assert hold("second", NOW) == []
    assert hold("first", NOW) == [erasure.erasure_id]
    assert hold("second", NOW + HELD_FOR / 2) == []
    assert hold("second", NOW + HELD_FOR / 2, gone=True) == [erasure.erasure_id]
    assert hold("first", NOW + HELD_FOR) == []
    assert hold("first", NOW + 2 * HELD_FOR) == [erasure.erasure_id], "the second has said nothing since"
    later = opened(ledger, owner="third", now=NOW + timedelta(seconds=1))
    assert hold("third", NOW) == []
    assert hold("first", NOW) == [erasure.erasure_id, later.erasure_id]
    ledger.erasures.close(MODEL, [erasure.erasure_id, later.erasure_id], NOW)
    assert hold("first", NOW) == []


def test_the_first_replacement_counts_and_points_everything_to_it(ledger: Ledger) -> None:
    drop_id = drop(ledger, "x", "waiting", "old")
    erasure = opened(ledger, documents=["1" * 32])
    made = ledger.versions.allocate(model=MODEL, training_key="k", reason="drop", dataset_ids=("old",), parent=None)
    old, erased = dataset("old", 3, drop_id), ["1" * 32]
    rivals = [dataset(f"new{number}", 2, drop_id) for number in range(4)]
    won = concurrently([partial(ledger.erasures.replace, old, rival, erased, NOW) for rival in rivals])
    assert sorted(won) == [False, False, False, True]
    (found,) = ledger.erasures.replacements(MODEL)
    assert (found.n_documents, found.n_left, found.erasure_ids) == (1, 2, (erasure.erasure_id,))
    assert ledger.erasures.replace(old, dataset(found.replaced_by, 2, drop_id), erased, NOW), "harmless to repeat"
    assert [state.dataset_id for state in ledger.drops.states(MODEL)] == [found.replaced_by]
    assert ledger.taints.blocking(MODEL, made.version) == [erasure.erasure_id]
    assert ledger.taints.blocking(MODEL, None) == ledger.taints.blocking(MODEL, "v9") == []


def test_rejects_alone_taint_nothing(ledger: Ledger) -> None:
    opened(ledger)
    ledger.versions.allocate(model=MODEL, training_key="k", reason="drop", dataset_ids=("old",), parent=None)
    assert ledger.erasures.replace(dataset("old", 3), dataset("new", 3), [], NOW)
    assert ledger.taints.all() == []


def test_now_sends_back_what_the_champion_and_its_parents_have_seen(ledger: Ledger) -> None:
    first, second, third = (drop(ledger, name, "trained", f"ds-{name}") for name in "xyz")
    for number, name in enumerate("xy"):
        parent = f"v{number}" if number else None
        made = ledger.versions.allocate(
            model=MODEL, training_key=name, reason="drop", dataset_ids=(f"ds-{name}",), parent=parent
        )
        ledger.versions.crown(MODEL, made.version)
    erasure = opened(ledger, rebuild="now")
    assert ledger.erasures.replace(dataset("ds-x", 3, first), dataset("new", 1, first), [], NOW)
    ledger.erasures.close(MODEL, [erasure.erasure_id], NOW)
    states = {state.drop_id: state.state for state in ledger.drops.states(MODEL)}
    assert states == {first: "waiting", second: "waiting", third: "trained"}
