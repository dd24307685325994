"""What becomes of versions that have seen what is erased: still live, never built upon, deleted, trained anew."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import tasks
from flows.context import Context
from flows.datasets import checkpoint_of, seen_by
from flows.erase import erase
from flows.erase_plan import plan
from flows.lineage import lineage
from flows.purge import ErasureStatus, purge_tainted, rebuilds_due, status
from flows.tasks import _start_of, require_clean
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.ledger import Ledger
from lake.recipe import Rollout
from lake.records import Checkpoint, Dataset
from lake.settings import Settings
from tests.documents import document
from tests.erasure import MODEL, dropped, lines, place, put_recipe, texts, version

PLAN = Rollout()


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    made = Context(settings)
    put_recipe(made)
    return made


@pytest.fixture
def family(context: Context) -> list[Dataset]:
    """v1, then v2 from v1, which serves. Each has a drop of its own: `a.jsonl` and `b.jsonl`."""
    first = dropped(context, {"a.jsonl": lines(*map(document, range(3)))}, "trained")
    version(context, [first])
    second = dropped(context, {"b.jsonl": lines(*map(document, range(10, 13)))}, "trained")
    version(context, [second], "v1")
    return [first, second]


def erased(context: Context, *subjects: str) -> ErasureStatus:
    (done,) = erase(context, plan(context, subjects))
    assert done.state == "done"
    return next(one for one in status(context) if one.erasure_id == done.erasure_id)


def versions(one: ErasureStatus) -> dict[str, tuple[str, bool, bool]]:
    return {each.version: (each.state, each.live, each.purged) for each in one.versions}


def artifacts(context: Context, name: str) -> list[str]:
    return [ref.key for ref in context.bucket.list(f"models/{MODEL}/{name}/")]


def offer(context: Context, challenger: str) -> None:
    context.ledger.rollouts.offer(model=MODEL, challenger=challenger, plan=PLAN, tag="t", environment={})


def test_all_descendants_have_seen_it_and_the_champion_serves_on(context: Context, family: list[Dataset]) -> None:
    found = erased(context, "inbox/docs/a.jsonl")
    assert versions(found) == {"v1": ("retired", False, False), "v2": ("champion", True, False)}
    assert not found.gone
    assert purge_tainted(context) == [f"{MODEL}/v1"]
    assert purge_tainted(context) == []
    assert artifacts(context, "v1") == [] and len(artifacts(context, "v2")) == 3
    (found,) = status(context)
    assert versions(found) == {"v1": ("erased", False, True), "v2": ("champion", True, False)}


def test_only_those_that_saw_it_are_tainted(context: Context, family: list[Dataset]) -> None:
    found = erased(context, "inbox/docs/b.jsonl")
    assert list(versions(found)) == ["v2"]
    assert purge_tainted(context) == []


def test_it_is_gone_when_a_clean_version_has_won(context: Context, family: list[Dataset], settings: Settings) -> None:
    erased(context, "inbox/docs/a.jsonl")
    clean = version(context, [family[1]], "v2", state="ready")
    offer(context, clean)
    assert purge_tainted(context) == [f"{MODEL}/v1"], "the champion may still win"
    (rollout,) = context.ledger.rollouts.running()
    assert context.ledger.rollouts.finish(rollout.rollout_id, "promoted")
    for kind in ("models", "bentos"):
        (context.bentoml_home / kind / MODEL / "v2").mkdir(parents=True)
    attempt = context.ledger.stages.begin("train-v2-again", MODEL, f"models/{MODEL}/v2/adapter/")
    assert attempt is not None
    scratch = context.workdir("train-v2-again")
    assert purge_tainted(context) == [f"{MODEL}/v2"]
    (found,) = status(context)
    assert found.gone
    assert versions(found) == {"v1": ("erased", False, True), "v2": ("erased", False, True)}
    assert artifacts(context, "v2") == [] and len(artifacts(context, clean)) == 3
    assert not scratch.exists() and not (context.bentoml_home / "models" / MODEL / "v2").exists()
    with pytest.raises(ValueError, match="v2 has seen documents that were erased since"):
        offer(context, "v2")


def test_a_challenger_under_way_is_left_to_its_rollout(context: Context, family: list[Dataset]) -> None:
    challenger = version(context, family, "v2", state="ready")
    offer(context, challenger)
    found = erased(context, "inbox/docs/b.jsonl")
    assert versions(found) == {"v2": ("champion", True, False), challenger: ("challenger", True, False)}
    assert purge_tainted(context) == []
    offer(context, challenger)  # which is under way: nothing new
    (rollout,) = context.ledger.rollouts.running()
    context.ledger.rollouts.finish(rollout.rollout_id, "rolled_back")
    context.ledger.rollouts.drop_replica(MODEL, challenger)
    with pytest.raises(ValueError, match="has seen documents that were erased since"):
        offer(context, challenger)
    assert purge_tainted(context) == [f"{MODEL}/{challenger}"]


def test_the_next_version_starts_from_the_base_and_replays_what_is_left(
    context: Context, family: list[Dataset]
) -> None:
    third = dropped(context, {"c.jsonl": lines(*map(document, range(20, 23)))})
    erased(context, "inbox/docs/a.jsonl")
    made = context.ledger.versions.get(MODEL, version(context, [third], "v2", state="candidate"))
    assert made is not None
    assert _start_of(context, made) is None
    require_clean(context, made)
    assert [dataset.n_kept for dataset in seen_by(context, MODEL, "v2")] == [3, 0]
    assert family[0] not in seen_by(context, MODEL, "v2")
    assert rebuilds_due(context) == []
    later = context.ledger.versions.get(MODEL, version(context, [third], "v3"))
    assert later is not None
    start = _start_of(context, later)
    assert start is not None and start.version == "v3", "a clean champion is built upon again"


def test_training_gets_neither_tainted_weights_nor_erased_text(
    context: Context, family: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def stand_in(**told: Any) -> tuple[Checkpoint, Path]:
        given.update(told)
        checkpoint = checkpoint_of(context, MODEL, "v1")
        assert checkpoint is not None
        changes = {"version": told["version"], "checkpoint_id": told["checkpoint_id"], "parent_version": None}
        return checkpoint.model_copy(update=changes), Path()

    # Not the module itself, whose imports take seconds.
    monkeypatch.setitem(sys.modules, "training.finetune", SimpleNamespace(finetune=stand_in))
    monkeypatch.setattr(tasks, "training_progress", lambda _: nullcontext())
    monkeypatch.setattr(tasks, "loss_curve_artifact", lambda *_: None)
    third = dropped(context, {"c.jsonl": lines(*map(document, range(20, 23)))})
    erased(context, "inbox/docs/a.jsonl", place(context, "b.jsonl", "line:1"))
    made = context.ledger.versions.allocate(
        model=MODEL, training_key="k", reason="drop", dataset_ids=(third.dataset_id,), parent="v2"
    )
    tasks.train.fn(context, made)
    assert given["parent"] is None and given["datasets"] == [third]
    replayed = [text for dataset in given["replay"] for text in texts(context, dataset, "train")]
    assert replayed and set(replayed) <= {document(11), document(12)}
    tree = lineage(context, f"{MODEL}/{made.version}")
    assert tree.detail == "candidate, trained because of drop, from the base model and against v2"
    assert [node.kind for node in tree.children] == ["adapter", "dataset", "replayed dataset", "replayed dataset"]
    (up,) = lineage(context, "inbox/docs/a.jsonl").children
    assert [node.name for node in up.children[0].children] == [f"{MODEL}/v1", f"{MODEL}/v2"], "v3 has not seen it"


def test_never_leaves_the_versions_alone_and_still_tells_them(context: Context, family: list[Dataset]) -> None:
    put_recipe(context, "never")
    erased(context, "inbox/docs/a.jsonl")
    third = dropped(context, {"c.jsonl": lines(*map(document, range(20, 23)))})
    made = context.ledger.versions.get(MODEL, version(context, [third], "v2", state="ready"))
    assert made is not None
    start = _start_of(context, made)
    assert start is not None and start.version == "v2"
    require_clean(context, made)
    offer(context, made.version)
    assert purge_tainted(context) == []
    (found,) = status(context)
    assert list(versions(found)) == ["v1", "v2", "v3"], "v3 has it from v2's weights"


def test_now_lets_all_that_is_left_wait_for_a_training(context: Context, family: list[Dataset]) -> None:
    put_recipe(context, "now")
    erased(context, "inbox/docs/a.jsonl")
    states = {state.dataset_id: state.state for state in context.ledger.drops.states(MODEL)}
    assert states[family[1].dataset_id] == "waiting"
    assert sorted(states.values()) == ["trained", "waiting"], "nothing is left of the first"
    assert rebuilds_due(context) == [MODEL]
    version(context, [family[1]], "v2", state="candidate")
    assert rebuilds_due(context) == [], "it was begun"


def test_an_operator_can_have_it_now(context: Context, family: list[Dataset]) -> None:
    now = datetime.now(UTC)
    assert not context.ledger.erasures.rebuild(MODEL, now)
    erased(context, "inbox/docs/a.jsonl")
    assert context.ledger.erasures.rebuild(MODEL, now)
    assert not context.ledger.erasures.rebuild(MODEL, now)


def test_a_training_that_is_cut_short_begins_again(context: Context, family: list[Dataset]) -> None:
    third = dropped(context, {"c.jsonl": lines(*map(document, range(20, 23)))}, "training")
    name = version(context, [third], "v2", state="candidate")
    erased(context, "inbox/docs/a.jsonl")
    made = context.ledger.versions.get(MODEL, name)
    assert made is not None
    with pytest.raises(TidemillError, match="expected a version that has seen nothing of what is erased"):
        require_clean(context, made)
    assert purge_tainted(context) == [f"{MODEL}/v1"], "its process may still write"
    (training,) = [state for state in context.ledger.drops.states(MODEL) if state.state == "training"]
    context.ledger.drops.move(training.drop_id, "training", "waiting", datetime.now(UTC))
    assert rebuilds_due(context) == [MODEL]
    assert purge_tainted(context) == [f"{MODEL}/{name}"]
    assert rebuilds_due(context) == [MODEL]


def test_a_second_erasure_taints_a_clean_version_that_replayed_it(context: Context, family: list[Dataset]) -> None:
    first = erased(context, "inbox/docs/a.jsonl")
    third = dropped(context, {"c.jsonl": lines(*map(document, range(20, 23)))}, "trained")
    clean = version(context, [third], "v2")
    purge_tainted(context)
    second = erased(context, "inbox/docs/b.jsonl")
    assert list(versions(second)) == [clean], "v1 and v2 are deleted already"
    assert next(one for one in status(context) if one.erasure_id == first.erasure_id).gone
