"""Lines that many documents share are found by their hashes, and go from each of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.rules.boilerplate import common_lines, line_hashes, without_lines
from lake.recipe.quality import Boilerplate

RULES = Boilerplate(min_documents=3, min_share=0.0, min_line_characters=5)
MENU, FOOTER = "Home | Products | About us", "© 2024  All rights reserved."


def pages(n: int) -> list[str]:
    return [
        f"{MENU}\nPage {number} says something of its own.\n\n{FOOTER.upper() if number % 2 else FOOTER}"
        for number in range(n)
    ]


def common(texts: list[str], rules: Boilerplate = RULES) -> np.ndarray:
    hashes, counts = np.unique(np.concatenate([line_hashes(text, rules) for text in texts]), return_counts=True)
    return common_lines(hashes, counts, len(texts), rules)


def test_shared_lines_go_from_all_documents() -> None:
    texts = pages(4)
    found = common(texts)
    assert len(found) == 2  # case and spacing do not make another line
    assert without_lines(texts[1], found) == ("Page 1 says something of its own.\n", 2)


def test_lines_of_few_documents_stay() -> None:
    texts = pages(2)
    assert without_lines(texts[0], common(texts)) == (texts[0], 0)
    assert len(common(pages(4), Boilerplate(min_documents=2, min_share=1.0))) == 2
    assert len(common([*pages(4), "Nothing shared."], Boilerplate(min_documents=2, min_share=1.0))) == 0


def test_short_lines_stay() -> None:
    assert len(common(["note\nx"] * 9)) == 0


def test_a_line_counts_once_a_document() -> None:
    assert len(common([f"{MENU}\n{MENU}\n{MENU}"])) == 0


@given(st.lists(st.text(max_size=30), max_size=10), st.text(max_size=60))
def test_only_what_is_common_goes(shared: list[str], text: str) -> None:
    rules = Boilerplate(min_documents=2, min_share=0.0, min_line_characters=1)
    found = line_hashes("\n".join(shared), rules)
    left, n = without_lines(text, found)
    assert len(text.split("\n")) - n == len(left.split("\n")) or (left, n) == ("", len(text.split("\n")))
    assert without_lines(left, found) == (left, 0) or left == ""
    assert not set(line_hashes(left, rules)) & set(found)
