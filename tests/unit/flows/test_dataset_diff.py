from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.dataset_diff import CHANGED_SOURCE, NOT_READ, compare
from flows.dataset_find import Stored
from lake.folder import Folder
from tests.prepared import Row, kept, put_dataset, rejected


def stored(folder: Path, rows: list[Row], **options: Any) -> Stored:
    store = Folder(folder)
    return Stored(store, "", put_dataset(store, "", rows, **options))


def elsewhere(row: Row, **changes: Any) -> Row:
    """The row, from another version of its object."""
    return row | {"place_id": f"{row['place_id']}-2", "source_etag": "e2", **changes}


def test_every_way_of_a_document(tmp_path: Path) -> None:
    same, moved, edited, overwritten = (kept(name, f"text of {name}") for name in ("same", "moved", "edited", "over"))
    gone = [kept(name, f"text of {name}") for name in ("short", "copy", "cut", "unread")]
    before = stored(tmp_path / "a", [same, moved, edited, overwritten | {"id": "place-over"}, *gone])
    original = {"duplicate_of": "same", "duplicate_of_place": "place-same", "similarity": 0.9}
    after = stored(
        tmp_path / "b",
        [
            same,
            elsewhere(moved, source_uri="s3://b/inbox/docs/other.jsonl"),
            edited | {"text": "another text"},
            elsewhere(overwritten, id="place-over-2", text="written anew"),
            rejected("short", "too_short", detail="7 characters, at least 150"),
            elsewhere(rejected("copy", "near_duplicate", **original)),
            kept("new", "text of new", source_uri=gone[2]["source_uri"]),
        ],
    )
    found = compare(before, after)
    assert (found.n_a, found.n_b, found.n_same) == (8, 5, 2)
    assert [(old.id, new.id) for old, new in found.changed] == [("edited", "edited"), ("place-over", "place-over-2")]
    told = {one.document.id: one for one in found.dropped}
    assert {name: one.reason for name, one in told.items()} == {
        "short": "too_short",
        "copy": "near_duplicate",
        "cut": CHANGED_SOURCE,
        "unread": NOT_READ,
    }
    assert (told["copy"].duplicate_of, told["copy"].similarity) == ("same", 0.9)
    assert told["short"].detail == "7 characters, at least 150"
    assert [one.document.id for one in found.added] == ["new"]
    assert found.summary()["dropped_by_reason"] == {
        "too_short": 1,
        "near_duplicate": 1,
        CHANGED_SOURCE: 1,
        NOT_READ: 1,
    }


def test_datasets_of_the_first_version_are_compared_by_their_given_ids(tmp_path: Path) -> None:
    rows = [kept(name, f"text of {name}") for name in ("one", "two", "three")]
    before = stored(tmp_path / "a", rows, earlier=True)
    after = stored(
        tmp_path / "b",
        [elsewhere(rows[0]), elsewhere(rows[1], text="edited"), elsewhere(rejected("three", "repetitive"))],
        earlier=True,
    )
    found = compare(before, after)
    assert (found.n_same, len(found.changed), [one.reason for one in found.dropped]) == (1, 1, ["repetitive"])
    assert compare(before, stored(tmp_path / "c", rows)).n_same == 3


def test_why_something_was_added_is_what_the_first_rejected_it_for(tmp_path: Path) -> None:
    text = "a text that the first rules found too short"
    before = stored(tmp_path / "a", [rejected("one", "too_short"), kept("two", "x")])
    found = compare(before, stored(tmp_path / "b", [kept("one", text), kept("two", "x")]))
    assert [(one.document.id, one.reason) for one in found.added] == [("one", "too_short")]
    assert (found.n_same, found.dropped) == (1, ())


def test_an_id_that_is_given_twice_pairs_by_text_first(tmp_path: Path) -> None:
    twice = [kept("same", text, place_id=f"p{n}") for n, text in enumerate(("first", "second"))]
    swapped = [elsewhere(twice[1]), elsewhere(twice[0], text="first, edited")]
    found = compare(stored(tmp_path / "a", twice), stored(tmp_path / "b", swapped))
    assert found.n_same == 1
    assert [(old.place_id, new.place_id) for old, new in found.changed] == [("p0", "p0-2")]


def test_a_dataset_and_nothing(tmp_path: Path) -> None:
    some, nothing = stored(tmp_path / "a", [kept("one", "x")]), stored(tmp_path / "b", [rejected("two", "bad_json")])
    assert [one.reason for one in compare(some, nothing).dropped] == [NOT_READ]
    assert len(compare(nothing, some).added) == 1


def test_a_line_that_is_put_in_moves_the_others_and_changes_none(tmp_path: Path) -> None:
    def lines(etag: str, *texts: str) -> list[Row]:
        at = [
            {"place_id": f"{etag}-{n}", "source_uri": "s3://b/a.txt", "position": f"line:{n}"}
            for n in range(len(texts))
        ]
        return [kept(place["place_id"], text, **place) for place, text in zip(at, texts, strict=True)]

    before = stored(tmp_path / "a", lines("e1", "one", "two", "three"))
    found = compare(before, stored(tmp_path / "b", lines("e2", "zero", "one", "two", "three")))
    assert (found.n_same, found.changed, found.dropped) == (3, (), ())
    assert [one.document.position for one in found.added] == ["line:0"]
    found = compare(before, stored(tmp_path / "c", lines("e3", "one", "two, edited", "three")))
    assert (found.n_same, len(found.changed), found.dropped, found.added) == (2, 1, (), ())
