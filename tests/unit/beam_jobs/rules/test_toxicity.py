"""Words of a list: whole, without case, in any script, from the recipe and from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_jobs.rules.bound import first_broken
from beam_jobs.rules.toxicity import bounds, measure
from lake.errors import TidemillError
from lake.recipe.quality import Toxicity


def test_whole_words_and_phrases_are_counted() -> None:
    rules = Toxicity(words=("darn", "blast it", "blast it all", "žlutý"))
    assert measure("Darn! Darned. DARN blast it all, blast, blast it; ŽLUTÝ", rules) == {
        "listed_words": 5,
        "listed_words_share": pytest.approx(8 / 10),
    }
    assert measure("", rules) == {"listed_words": 0, "listed_words_share": 0.0}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Toxicity(words=("darn",)), ("toxic", "2, at most 0")),
        (Toxicity(words=("darn",), max_count=1), ("toxic", "2, at most 1")),
        (Toxicity(words=("darn",), max_count=2), None),
        (Toxicity(words=("darn",), max_count=9, max_share=0.4), ("toxic", "0.5, at most 0.4")),
        (Toxicity(words=("darn",), max_count=9, max_share=0.5), None),
    ],
)
def test_too_many_are_rejected(rules: Toxicity, expected: tuple[str, str] | None) -> None:
    assert first_broken(measure("darn one darn two", rules), bounds(rules)) == expected


def test_a_list_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# a comment\ndarn\n\nblast it\n", encoding="utf-8")
    rules = Toxicity(words=("heck",), file=f"file:{path}")
    assert measure("heck darn comment blast it", rules)["listed_words"] == 3


def test_a_list_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match="word list") as told:
        measure("text", Toxicity(file=f"file:{tmp_path}/none.txt"))
    assert "quality.toxicity.words" in told.value.remedy
    with pytest.raises(TidemillError, match="at least one word"):
        measure("text", Toxicity(words=("!!",)))
    with pytest.raises(ValueError, match="words or a file"):
        Toxicity()
