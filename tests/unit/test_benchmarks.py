"""Benchmarks as a program: what there is to run, what it writes, what its exit status says."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from rich.console import Console

from benchmarks import __main__ as program
from benchmarks._documentation import _batches, _cut
from benchmarks._edits import EDITS, edited
from benchmarks._exact_jaccard import shingles, similar_pairs
from benchmarks._growth_side import measure
from benchmarks._handbooks import _text
from benchmarks._inbox import fill
from benchmarks._memory import peak_bytes
from benchmarks._sampled import BEAM, Sampled, place_of
from benchmarks.dedup import score_of
from benchmarks.dedup_growth import power_law
from benchmarks.ingest import percentile
from benchmarks.prepare import shares
from benchmarks.report import Figure, at_least, at_most, show, told, write
from lake.bucket import Bucket
from tests.s3 import address_of, nanio

FIGURES = [
    at_most("ratio", 1.1, 1.25, "×", "CPU seconds"),
    at_least("speed", 3.0, 7, "tok/s", "batch 1"),
    told("memory", 5.5, "MB", "peak"),
]


def test_a_figure_knows_whether_it_reached_its_target() -> None:
    assert [(figure.target, figure.ok) for figure in FIGURES] == [("≤ 1.25", True), ("≥ 7", False), (None, None)]
    assert at_most("x", 1.25, 1.25, "×", "").ok


def test_figures_are_written_as_a_list(tmp_path: Path) -> None:
    path = write("some", FIGURES, tmp_path / "out")
    assert path == tmp_path / "out" / "some.json"
    read = json.loads(path.read_text())
    assert list(read[0]) == ["name", "value", "unit", "target", "ok", "how"]
    assert [Figure.model_validate(each) for each in read] == FIGURES


def test_figures_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show("some", FIGURES, Console(width=120))
    shown = capsys.readouterr().out
    for part in ("some", "1.1 ×", "≤ 1.25", "3 tok/s", "CPU seconds"):
        assert part in shown


def test_names_are_the_modules_with_a_benchmark() -> None:
    assert {"ingest", "prepare", "dedup", "dedup_growth", "dedup_peers", "prepare_memory", "prepare_workers"} <= set(
        program.names()
    )
    assert not {"report", "__main__", "_documentation", "peers"} & set(program.names())


@pytest.mark.parametrize(
    ("n", "percent", "expected"), [(40, 50, 20), (40, 99, 40), (100, 99, 99), (200, 99, 198), (1, 50, 1), (3, 50, 2)]
)
def test_a_percentile_is_a_value_that_was_measured(n: int, percent: int, expected: int) -> None:
    assert percentile([float(value) for value in range(1, n + 1)], percent) == expected


@pytest.mark.parametrize("n_folders", [1, 3])
def test_an_inbox_written_to_disk_is_what_a_store_would_have_kept(tmp_path: Path, n_folders: int) -> None:
    with nanio(tmp_path) as url:
        bucket = Bucket(address_of(url, "filled"))
        bucket.ensure(create=True)
        fill(tmp_path / "data", bucket, "docs", 20, n_folders)
        found = list(bucket.list("inbox/docs/"))
        assert len(found) == 20
        assert len({ref.key.rpartition("/")[0] for ref in found}) == n_folders
        for ref in found:
            body = bucket.open_version(ref).read()
            assert (ref.size_bytes, ref.etag) == (len(body), hashlib.md5(body).hexdigest())
        before = found[0]
        bucket.put(before.key, body=bucket.get(before.key))
        again = next(ref for ref in bucket.list("inbox/docs/") if ref.key == before.key)
        assert (again.etag, again.size_bytes) == (before.etag, before.size_bytes)


@pytest.mark.parametrize(("figures", "status"), [(FIGURES, 1), (FIGURES[:1], 0)])
def test_the_exit_status_says_whether_a_target_was_missed(
    figures: list[Figure], status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = ModuleType("benchmarks.stand_in")
    module.run = lambda: figures  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.stand_in", module)
    monkeypatch.setattr(program, "names", lambda: ["stand_in"])
    monkeypatch.setattr(program, "write", lambda name, found: write(name, found, tmp_path))
    assert program.main([]) == status
    assert (tmp_path / "stand_in.json").exists()


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["nothing"]) == 2
    assert "nothing: expected some of " in capsys.readouterr().err


TEXT = " ".join(f"word{n}" for n in range(200))


@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_the_share_of_words_that_it_says(kind: str) -> None:
    new = edited(TEXT, 0.1, "seed", ["other"], kind)
    assert new == edited(TEXT, 0.1, "seed", ["other"], kind) != edited(TEXT, 0.1, "another seed", ["other"], kind)
    before, after = TEXT.split(), new.split()
    assert len(after) - len(before) == {"delete": -20, "insert": 20}.get(kind, 0)
    assert after.count("other") == (20 if kind in ("replace", "insert") else 0)
    assert len(set(before) & set(after)) == 200 - (20 if kind in ("replace", "delete") else 0)
    assert (sorted(before) == sorted(after)) == (kind == "move")


def test_a_short_text_is_edited_in_one_word_at_least() -> None:
    assert edited("two words", 0.01, "seed", ["other"], "replace").split().count("other") == 1


def test_exact_similarities_are_those_of_python_sets() -> None:
    texts = [
        TEXT,
        "",
        "one two",
        "One, two!",
        *(edited(TEXT, share, str(share), ["x"]) for share in (0.01, 0.02, 0.05, 0.3)),
    ]
    sets = [shingles(text) for text in texts]
    expected = {
        (a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        for a in range(len(texts))
        for b in range(a + 1, len(texts))
        if sets[a] & sets[b]
    }
    pairs, similarities = similar_pairs(texts, 0.5)
    found = dict(zip(map(tuple, pairs.tolist()), similarities.tolist(), strict=True))
    assert found == pytest.approx({pair: value for pair, value in expected.items() if value >= 0.5})
    assert found[2, 3] == 1
    assert len(found) > 2


def test_recall_and_precision_of_pairs() -> None:
    true = np.array([[0, 1], [0, 2], [3, 4], [5, 6]])
    assert score_of(np.array([[0, 1], [3, 4], [1, 9]]), true) == (0.5, 2 / 3)
    assert score_of(np.zeros((0, 2), np.int64), true) == (0, 0)


def test_both_sides_find_what_is_alike() -> None:
    from benchmarks._dedup_sides import datasketch, kept, ours
    from lake.recipe import PrepareRules

    other = " ".join(f"other{n}" for n in range(200))
    texts = [TEXT, other, TEXT + " end", TEXT.upper()]
    assert ours(texts, 20, 0.8).pairs.tolist() == [[0, 2], [0, 3], [2, 3]]
    confirmed, candidates = datasketch(texts, 0.8)
    assert {tuple(pair) for pair in confirmed.pairs.tolist()} == {(0, 2), (0, 3), (2, 3)}
    assert len(candidates.pairs) >= 3
    assert kept(texts, PrepareRules()) == [0, 1]


@pytest.mark.parametrize("n_history", [0, 3_000])
def test_growth_is_of_candidates_that_are_found(n_history: int) -> None:
    found = measure(n_history, 2_000)
    assert found["cpu_s"] > 0
    assert found["bytes"] >= 0


def test_a_power_law_is_recovered() -> None:
    exponent, factor = power_law([1e5, 1e6, 1e7], [3 * n**1.1 for n in (1e5, 1e6, 1e7)])
    assert (exponent, factor) == (pytest.approx(1.1), pytest.approx(3))


def test_samples_are_of_what_of_ours_is_running() -> None:
    from beam_jobs.simhash import fingerprint

    with Sampled() as sampled:
        for _ in range(300):
            fingerprint(TEXT * 10)
    assert max(sampled.counts, key=sampled.counts.__getitem__)[0] == "beam_jobs.simhash"
    assert BEAM not in {module for module, _ in sampled.counts}
    assert place_of(None) is None
    assert place_of(sys._getframe()) is None


def test_shares_of_time_make_one() -> None:
    figures = shares({"a": {"f": 3, "g": 1}, "b": {"h": 12}})
    assert [(figure.name, figure.value) for figure in figures] == [("time in b", 0.75), ("time in a", 0.25)]
    assert figures[1].how == "f 18.8%, g 6.2%"


def test_the_largest_memory_is_the_kernels() -> None:
    assert 10_000_000 < peak_bytes() < 1 << 40


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("page.html", "<html><head><title>t</title></head><body><nav>menu</nav><h1>One</h1><p>two <b>three</b></p><p>four</p></body></html>", "One\n\ntwo three\n\nfour\n\n"),
        ("page.pod", "=head1 NAME\n\nperl - a language\n", "NAME\n\nperl - a language\n"),
        ("page.rst", "Title\n=====\n", "Title\n=====\n"),
        ("page.png", "no text", None),
    ],
)  # fmt: skip
def test_a_handbooks_pages_are_read(tmp_path: Path, name: str, content: str, expected: str | None) -> None:
    (tmp_path / name).write_text(content)
    found = _text(tmp_path / name)
    assert (found and found.split()) == (expected and expected.split())


def test_long_pages_are_cut_at_paragraphs() -> None:
    text = "\n\n".join(f"paragraph {n} " * 20 for n in range(50)) + "\n\n" + "x" * 5_000
    parts = list(_cut(text, 1_000))
    assert max(map(len, parts)) <= 1_000
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_documents_come_in_objects_of_bounded_size() -> None:
    from benchmarks._documentation import OBJECT_BYTES, Document

    found = [Document(str(n), "x" * 400_000) for n in range(9)]
    batches = list(_batches(found))
    assert [each for batch in batches for each in batch] == found
    assert all(sum(len(each.text) for each in batch) < OBJECT_BYTES + 400_000 for batch in batches)
