"""Stages: outputs first, manifest last, skipped when committed, run again when their build died."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from lake.bucket import Bucket
from lake.errors import StageTakenOver
from lake.layout import manifest_key
from lake.ledger import Ledger
from lake.records import Record
from lake.stage import Manifest, code_version, run_stage, stage_id, sweep
from tests.concurrently import concurrently


class Made(Record):
    """What the stage under test hands over."""

    made_id: str
    by: str


def prefix_of(identity: str) -> str:
    return f"reports/docs/check/{identity}/"


def run(ledger: Ledger, bucket: Bucket, build: Callable[[str, str], Made], rank: int = 8) -> Made:
    return run_stage(
        ledger,
        bucket,
        stage="made",
        model="docs",
        inputs=["input-1"],
        parameters={"rank": rank},
        package="lake",
        folder_of=prefix_of,
        record_type=Made,
        build=build,
    )


def build(
    bucket: Bucket, identity: str, prefix: str, by: str = "first", files: tuple[str, ...] = ("a.txt", "b/c.txt")
) -> Made:
    for name in files:
        bucket.put(prefix + name, f"{by} {name}".encode())
    return Made(made_id=identity, by=by)


def never(_: str, __: str) -> Made:
    raise AssertionError("built again")


def keys(bucket: Bucket, identity: str) -> list[str]:
    return [ref.key.removeprefix(prefix_of(identity)) for ref in bucket.list(prefix_of(identity))]


def test_a_manifest_lists_every_output_with_size_and_hash(ledger: Ledger, bucket: Bucket) -> None:
    made = run(ledger, bucket, partial(build, bucket))
    manifest = Manifest.model_validate_json(bucket.get(manifest_key(prefix_of(made.made_id))))
    assert manifest.stage_id == made.made_id
    assert manifest.inputs == ("input-1",)
    assert manifest.parameters == {"rank": 8}
    assert manifest.code_version == code_version("lake")
    assert manifest.record == made.model_dump()
    assert [(out.key, out.size_bytes, out.sha256) for out in manifest.outputs] == [
        (prefix_of(made.made_id) + name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in (("a.txt", b"first a.txt"), ("b/c.txt", b"first b/c.txt"))
    ]


def test_a_committed_stage_is_not_built_again(ledger: Ledger, bucket: Bucket) -> None:
    made = run(ledger, bucket, partial(build, bucket))
    assert run(ledger, bucket, never) == made


def test_other_parameters_are_another_stage(ledger: Ledger, bucket: Bucket) -> None:
    made = run(ledger, bucket, partial(build, bucket))
    assert run(ledger, bucket, partial(build, bucket), rank=16).made_id != made.made_id
    assert len(ledger.stages.records("made", "docs")) == 2


def test_no_manifest_is_there_while_a_stage_is_built(ledger: Ledger, bucket: Bucket) -> None:
    def look(identity: str, prefix: str) -> Made:
        made = build(bucket, identity, prefix)
        assert not bucket.exists(manifest_key(prefix_of(identity)))
        return made

    made = run(ledger, bucket, look)
    assert keys(bucket, made.made_id) == ["a.txt", "b/c.txt", "manifest.json"]


def second_prefix(identity: str) -> str:
    return f"{prefix_of(identity).removesuffix('/')}.2/"


def test_a_stage_whose_build_died_runs_again_in_a_folder_of_its_own(ledger: Ledger, bucket: Bucket) -> None:
    def die(identity: str, prefix: str) -> Made:
        build(bucket, identity, prefix, files=("a.txt", "half-written.txt"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(ledger, bucket, die)
    assert ledger.stages.records("made", "docs") == []
    made = run(ledger, bucket, partial(build, bucket, by="second"))
    assert made.by == "second"
    manifest = Manifest.model_validate_json(bucket.get(manifest_key(second_prefix(made.made_id))))
    assert [out.key for out in manifest.outputs] == [
        second_prefix(made.made_id) + name for name in ("a.txt", "b/c.txt")
    ]
    assert keys(bucket, made.made_id) == ["a.txt", "half-written.txt"]
    assert sweep(ledger, bucket) == 1
    assert keys(bucket, made.made_id) == []
    assert len(list(bucket.list(second_prefix(made.made_id)))) == 3


def test_a_process_that_was_taken_for_dead_can_commit_nothing(ledger: Ledger, bucket: Bucket) -> None:
    """It is paused while it builds; another process takes the stage over and commits it; then it wakes up."""

    def paused(identity: str, prefix: str) -> Made:
        made = build(bucket, identity, prefix, by="zombie", files=("a.txt", "more.txt"))
        assert run(ledger, bucket, partial(build, bucket, by="heir")).by == "heir"
        return made

    made = run(ledger, bucket, paused)
    assert made.by == "heir"
    assert [attempt.state for attempt in ledger.stages.attempts(made.made_id)] == ["superseded", "committed"]
    heirs = Manifest.model_validate_json(bucket.get(manifest_key(second_prefix(made.made_id))))
    assert all(bucket.get(out.key).startswith(b"heir") for out in heirs.outputs)
    assert sweep(ledger, bucket) == 1
    bucket.put(prefix_of(made.made_id) + "late.txt", b"it writes even after that")
    assert sweep(ledger, bucket) == 0
    assert keys(bucket, made.made_id) == []


def test_a_process_that_wakes_up_before_its_heir_has_ended_says_so(ledger: Ledger, bucket: Bucket) -> None:
    def paused(identity: str, prefix: str) -> Made:
        ledger.stages.begin(identity, "docs", prefix_of(identity))
        return build(bucket, identity, prefix)

    with pytest.raises(StageTakenOver, match="attempt 1: expected to be its only writer"):
        run(ledger, bucket, paused)
    assert ledger.stages.records("made", "docs") == []


def test_only_what_can_never_be_committed_is_swept(ledger: Ledger, bucket: Bucket) -> None:
    made = run(ledger, bucket, partial(build, bucket))
    under_way = ledger.stages.begin("another-stage", "docs", "reports/docs/check/another/")
    assert under_way is not None
    bucket.put(f"{under_way.prefix}a.txt", b"half")
    assert sweep(ledger, bucket) == 0
    assert keys(bucket, made.made_id) == ["a.txt", "b/c.txt", "manifest.json"]
    assert bucket.exists(f"{under_way.prefix}a.txt")
    assert sweep(ledger, bucket, abandoned_after=timedelta(0)) == 1
    assert not bucket.exists(f"{under_way.prefix}a.txt")
    assert not ledger.stages.commit(under_way, stage="made", manifest_key="m", record={}, duration_s=0)


def test_a_death_between_manifest_and_ledger_costs_nothing(
    ledger: Ledger, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ledger.stages, "commit", die)
        run(ledger, bucket, partial(build, bucket))
    made = run(ledger, bucket, never)
    assert made.by == "first"
    assert ledger.stages.find(made.made_id) == made.model_dump()


def test_of_two_processes_that_build_a_stage_the_first_record_counts(ledger: Ledger, bucket: Bucket) -> None:
    def attempt(name: str) -> Made | None:
        try:
            return run(ledger, bucket, partial(build, bucket, by=name))
        except StageTakenOver:
            return None

    made = [found for found in concurrently([partial(attempt, name) for name in ("one", "two")]) if found]
    assert made
    assert all(found == made[0] for found in made)
    assert len(ledger.stages.records("made", "docs")) == 1


def test_a_manifest_of_another_stage_in_the_same_place_is_replaced(ledger: Ledger, bucket: Bucket) -> None:
    first = run(ledger, bucket, partial(build, bucket))
    manifest = bucket.get(manifest_key(prefix_of(first.made_id)))
    other = stage_id("made", ["input-1"], {"rank": 9}, code_version("lake"))
    bucket.put(manifest_key(prefix_of(other)), manifest)
    made = run(ledger, bucket, partial(build, bucket, by="second"), rank=9)
    assert (made.made_id, made.by) == (other, "second")


def test_stages_that_share_a_folder_never_write_to_the_same_place(ledger: Ledger, bucket: Bucket) -> None:
    """A version's adapter has one folder, whatever code and rules it was trained by."""

    def shared(identity: str, rank: int) -> Made:
        return run_stage(
            ledger,
            bucket,
            stage="made",
            model="docs",
            inputs=[identity],
            parameters={"rank": rank},
            package="lake",
            folder_of=lambda _: "models/docs/v1/adapter/",
            record_type=Made,
            build=partial(build, bucket, by=f"rank {rank}"),
        )

    lost = ledger.stages.begin("lost", "docs", "models/docs/v1/adapter/")
    assert lost is not None
    shared("a", 8)
    shared("a", 16)
    assert sweep(ledger, bucket, abandoned_after=timedelta(0)) == 1
    assert bucket.get("models/docs/v1/adapter.2/a.txt") == b"rank 8 a.txt"
    assert bucket.get("models/docs/v1/adapter.3/a.txt") == b"rank 16 a.txt"


def test_a_stage_committed_at_the_last_moment_is_not_begun(ledger: Ledger, bucket: Bucket) -> None:
    made = run(ledger, bucket, partial(build, bucket))
    assert ledger.stages.begin(made.made_id, "docs", prefix_of(made.made_id)) is None


def test_a_damaged_manifest_counts_for_nothing(ledger: Ledger, bucket: Bucket) -> None:
    identity = stage_id("made", ["input-1"], {"rank": 8}, code_version("lake"))
    attempt = ledger.stages.begin(identity, "docs", prefix_of(identity))
    assert attempt is not None
    bucket.put(manifest_key(attempt.prefix), b"{")
    assert run(ledger, bucket, partial(build, bucket, by="second")).by == "second"


def test_the_id_depends_on_everything_that_goes_in_and_on_nothing_else() -> None:
    told = stage_id("made", ["a", "b"], {"x": 1, "y": (1, 2)}, "code")
    assert stage_id("made", ("a", "b"), {"y": [1, 2], "x": 1}, "code") == told
    others = {
        stage_id("other", ["a", "b"], {"x": 1, "y": (1, 2)}, "code"),
        stage_id("made", ["b", "a"], {"x": 1, "y": (1, 2)}, "code"),
        stage_id("made", ["a", "b"], {"x": 2, "y": (1, 2)}, "code"),
        stage_id("made", ["a", "b"], {"x": 1, "y": (1, 2)}, "newer code"),
    }
    assert told not in others
    assert len(others) == 4


def test_the_code_version_follows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lake.stage.ROOT", tmp_path)
    for name, content in (("one", "x = 1"), ("same", "x = 1"), ("two", "x = 2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text(content)
    assert code_version.__wrapped__("one") == code_version.__wrapped__("one")
    assert code_version.__wrapped__("one") != code_version.__wrapped__("two")
    before = code_version.__wrapped__("one")
    (tmp_path / "one" / "more.py").write_text("y = 1")
    assert code_version.__wrapped__("one") != before
