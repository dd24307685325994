"""Copies of a text with a share of its words edited: what an author's next version looks like, at every degree."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

# Words with the space after them: what an edit leaves alone keeps its lines.
_WORD = re.compile(r"\S+\s*")
EDITS = ("replace", "delete", "insert", "move")


def edited(text: str, share: float, seed: str, vocabulary: Sequence[str], kind: str | None = None) -> str:
    """`share` of the words replaced, deleted, joined by another one, or moved elsewhere; which, by the seed.

    One kind of edit a copy: `kind`, or one of EDITS by the seed. Words that are new to the text come from `vocabulary`. At least one word is edited.
    """
    draw = random.Random(seed)
    words = _WORD.findall(text)
    n_edits = max(1, round(share * len(words)))
    kind = kind or draw.choice(EDITS)
    # From the end, so that places stay true while words come and go.
    for place in sorted(draw.sample(range(len(words)), min(n_edits, len(words))), reverse=True):
        if kind == "replace":
            words[place] = draw.choice(vocabulary) + " "
        elif kind == "delete":
            del words[place]
        elif kind == "insert":
            words.insert(place, draw.choice(vocabulary) + " ")
        else:
            words.insert(draw.randrange(len(words)), words.pop(place))
    return "".join(words)
