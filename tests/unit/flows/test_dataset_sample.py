from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.dataset_find import Stored
from flows.dataset_sample import Seen, Wanted, draw
from flows.dataset_views import printable, sample_view
from lake.folder import Folder
from tests.prepared import kept, put_dataset, rejected, table_of

ROWS = [
    *(
        kept(
            f"doc{n}",
            f"text {n}",
            ("train", "test")[n % 2],
            lang=("en", "de")[n % 3 == 0],
            domain=("wiki", "code")[n % 4 == 0],
        )
        for n in range(40)
    ),
    rejected("short", "too_short", detail="7 characters, at least 150"),
    rejected(
        "copy", "near_duplicate", duplicate_of="doc3", duplicate_of_place="place-doc3", similarity=0.91, lang="de"
    ),
    rejected("far", "exact_duplicate", duplicate_of="elsewhere", similarity=1.0),
]


@pytest.fixture
def dataset(tmp_path: Path) -> Stored:
    store = Folder(tmp_path)
    return Stored(store, "p/", put_dataset(store, "p/", ROWS))


def ids(seen: list[Seen]) -> set[str]:
    return {one.row["id"] for one in seen}


def test_the_same_seed_draws_the_same(dataset: Stored) -> None:
    first, n_all = draw(dataset, Wanted(), 10, 0)
    assert (len(ids(first)), n_all) == (10, 40)
    assert [one.row["id"] for one in draw(dataset, Wanted(), 10, 0)[0]] == [one.row["id"] for one in first]
    assert ids(draw(dataset, Wanted(), 10, 1)[0]) != ids(first)
    assert len(draw(dataset, Wanted(), 100, 0)[0]) == 40


def test_every_row_comes_with_its_own_text_and_metrics(dataset: Stored) -> None:
    by_id = {row["id"]: row for row in ROWS}
    for one in draw(dataset, Wanted(), 40, 3)[0]:
        assert one.text == by_id[one.row["id"]]["text"]
        assert one.metrics["place_id"] == one.row["place_id"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(split="test"), {f"doc{n}" for n in range(1, 40, 2)}),
        (Wanted(lang="de"), {f"doc{n}" for n in range(0, 40, 3)}),
        (Wanted(split="train", lang="de", domain="code"), {f"doc{n}" for n in range(0, 40, 12)}),
        (Wanted(domain="law"), set()),
        (Wanted(reason="too_short"), {"short"}),
        (Wanted(reason="any"), {"short", "copy", "far"}),
        (Wanted(reason="any", lang="de"), {"copy"}),
        (Wanted(reason="bad_json"), set()),
    ],
)
def test_only_what_is_wanted_is_drawn(dataset: Stored, wanted: Wanted, expected: set[str]) -> None:
    seen, n_all = draw(dataset, wanted, 100, 0)
    assert (ids(seen), n_all) == (expected, len(expected))


def test_a_duplicate_comes_with_what_is_kept_instead(dataset: Stored) -> None:
    (copy,), _ = draw(dataset, Wanted(reason="near_duplicate"), 5, 0)
    assert copy.kept is not None
    assert (copy.kept["text"], copy.kept_in) == ("text 3", "d1")
    (far,), _ = draw(dataset, Wanted(reason="exact_duplicate"), 5, 0)
    assert far.kept is None


def test_what_is_kept_instead_may_be_in_the_history(dataset: Stored, tmp_path: Path) -> None:
    store = Folder(tmp_path / "h")
    past = Stored(store, "", put_dataset(store, "", [kept("elsewhere", "an earlier text")], dataset_id="d0"))
    (far,), _ = draw(dataset, Wanted(reason="exact_duplicate"), 5, 0, [past])
    assert far.kept is not None
    assert (far.kept["text"], far.kept_in) == ("an earlier text", "d0")


def test_what_quotas_left_out_has_its_text(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    left_out = rejected("later", "over_quota")
    dataset = Stored(store, "", put_dataset(store, "", [left_out]))
    store.put_table("reserve/n000000.parquet", table_of([left_out | {"text": "a good text"}], ["place_id", "text"]))
    (seen,), _ = draw(dataset, Wanted(reason="over_quota"), 5, 0)
    assert seen.text == "a good text"
    assert "a good text" in shown(seen) and "over_quota" in shown(seen)


def test_a_dataset_of_the_first_version(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    old = [*ROWS[:3], rejected("copy", "near_duplicate", duplicate_of="place-doc1", similarity=0.9)]
    dataset = Stored(store, "", put_dataset(store, "", old, earlier=True))
    assert {one.text for one in draw(dataset, Wanted(lang="en"), 5, 0)[0]} == {"text 1", "text 2"}
    assert draw(dataset, Wanted(domain="wiki"), 5, 0) == ([], 0)
    (copy,), _ = draw(dataset, Wanted(reason="near_duplicate"), 5, 0)
    assert copy.kept is not None and copy.kept["text"] == "text 1"


def shown(one: Seen, n_characters: int = 100) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(sample_view(one, n_characters, 100))
    return console.export_text()


def test_what_is_seen(dataset: Stored) -> None:
    (copy,), _ = draw(dataset, Wanted(reason="near_duplicate"), 1, 0)
    for word in ("near_duplicate", "kept instead", "doc3", "91% alike", "text 3", "dataset d1"):
        assert word in shown(copy)
    (short,), _ = draw(dataset, Wanted(reason="too_short"), 1, 0)
    assert "7 characters, at least 150" in shown(short) and "no text is kept" in shown(short)
    (one,), _ = draw(dataset, Wanted(), 1, 0)
    assert one.text is not None and one.text in shown(one) and "letters_share=0.8" in shown(one)
    assert "… 2 more characters" in shown(Seen(one.row | {"text": "abcdef"}, {}), 4)


def test_a_text_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31m[bold]b\x07\n\tc\u202e").plain == "a\ufffd[31m[bold]b\ufffd\n\tc\ufffd"
    assert printable("[red]x[/]").spans == []
