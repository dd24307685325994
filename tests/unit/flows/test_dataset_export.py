from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import datasets
import pytest

from flows.dataset_export import export
from flows.dataset_find import Stored
from lake.errors import TidemillError
from lake.folder import Folder
from tests.prepared import Row, kept, put_dataset, rejected, table_of

ROWS = [kept(f"doc{n}", f"text ünïcode {n}\nsecond line", ("train", "test")[n % 5 == 0]) for n in range(20)]
IDS = {"train": {row["id"] for row in ROWS if row["split"] == "train"}, "test": {f"doc{n}" for n in range(0, 20, 5)}}


def stored(folder: Path, rows: list[Row]) -> Stored:
    store = Folder(folder)
    return Stored(store, "", put_dataset(store, "", rows))


@pytest.fixture
def dataset(tmp_path: Path) -> Stored:
    return stored(tmp_path / "dataset", [*ROWS, rejected("bad", "too_short")])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_load_from_disk_opens_all_splits(dataset: Stored, tmp_path: Path) -> None:
    counts = export(dataset, "datasets", tmp_path / "out")
    loaded = datasets.load_from_disk(str(tmp_path / "out"))
    assert isinstance(loaded, datasets.DatasetDict)
    assert counts == {split: len(loaded[split]) for split in ("train", "validation", "test")}
    assert {split: set(loaded[split]["id"]) for split in IDS} == IDS
    assert loaded["validation"].num_rows == 0
    assert {row["id"]: row["text"] for row in loaded["test"]}["doc5"] == "text ünïcode 5\nsecond line"
    assert loaded["train"].map(lambda row: {"twice": 2 * row["n_words"]})["twice"][0] == 10
    again = export(stored(tmp_path / "other", ROWS[::-1]), "datasets", tmp_path / "out2")
    assert again == counts


@pytest.mark.parametrize(("kind", "builder"), [("jsonl", "json"), ("jsonl.gz", "json"), ("parquet", "parquet")])
def test_load_dataset_reads_the_files(dataset: Stored, tmp_path: Path, kind: str, builder: str) -> None:
    export(dataset, kind, tmp_path / "out")  # type: ignore[arg-type]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"test.{kind}", f"train.{kind}"]
    files = {split: str(tmp_path / "out" / f"{split}.{kind}") for split in IDS}
    loaded = datasets.load_dataset(builder, data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {split: set(loaded[split]["id"]) for split in IDS} == IDS


def test_json_lines_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    row = kept("odd", 'quotes " and \u2028 and \\ and tab\t', letters_share=float("nan"), repetition=float("inf"))
    export(stored(tmp_path / "dataset", [row]), "jsonl.gz", tmp_path / "out")
    (line,) = gzip.decompress((tmp_path / "out" / "train.jsonl.gz").read_bytes()).decode().split("\n")[:-1]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    told = json.loads(line, parse_constant=refuse)
    assert (told["text"], told["letters_share"], told["repetition"]) == (row["text"], None, None)


def test_only_some_columns(dataset: Stored, tmp_path: Path) -> None:
    export(dataset, "datasets", tmp_path / "out", ["text", "lang"])
    assert datasets.load_from_disk(str(tmp_path / "out"))["test"].column_names == ["text", "lang"]
    with pytest.raises(TidemillError, match="columns nix: expected some of id, place_id, text"):
        export(dataset, "jsonl", tmp_path / "other", ["nix", "text"])


def test_what_is_in_the_way_is_left_alone(dataset: Stored, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(dataset, "jsonl", tmp_path / "out")  # an empty folder is as good as none
    before = (tmp_path / "out" / "train.jsonl").read_bytes()
    with pytest.raises(TidemillError, match="expected a new or an empty folder"):
        export(dataset, "datasets", tmp_path / "out")
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == before
    with pytest.raises(TidemillError, match="expected kept documents, got none"):
        export(stored(tmp_path / "none", [rejected("a", "too_short")]), "jsonl", tmp_path / "none-out")


def test_a_shard_of_another_shape_stops_it_and_nothing_is_left(dataset: Stored, tmp_path: Path) -> None:
    dataset.store.put_table("shards/train-n000009.parquet", table_of(ROWS, ["id", "text"]))
    with pytest.raises(TidemillError, match=r"train-n000009.parquet: expected the columns id, place_id, text"):
        export(dataset, "jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset"]


def test_memory_holds_one_shard(tmp_path: Path) -> None:
    store, peaks = Folder(tmp_path / "dataset"), []
    row = kept("x", "some words and more " * 500)
    table = table_of([row | {"id": f"{n}"} for n in range(200)], ["id", "text"])
    for n_shards in (2, 20):
        for number in range(n_shards):
            store.put_table(f"shards/train-n{number:06d}.parquet", table)
        tracemalloc.start()
        export(Stored(store, "", put_dataset(store, "other/", [row])), "jsonl", tmp_path / f"out{n_shards}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
