"""Real English to learn from: Python's help topics, and the licence as what reads otherwise."""

from __future__ import annotations

import random
import re
from pathlib import Path
from pydoc_data.topics import topics

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def paragraphs() -> list[str]:
    """586 different paragraphs of help in random order, 31,000 words."""
    found = {
        re.sub(r"\s+", " ", paragraph).strip()
        for topic in topics.values()  # several topics share a page
        for paragraph in topic.split("\n\n")
        if len(paragraph) > 200 and "|" not in paragraph  # one with bars is a table
    }
    listed = sorted(found)
    random.Random(0).shuffle(listed)
    return listed


@pytest.fixture(scope="session")
def legal_paragraphs() -> list[str]:
    """English of another kind: the Apache licence."""
    text = (ROOT / "LICENSE").read_text()
    return [re.sub(r"\s+", " ", part).strip() for part in text.split("\n\n") if len(part) > 200]
