"""The length of documents in tokens, the unit of quotas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lake.errors import RecipeError
from lake.recipe import Mix

WORDS = "words"
_TOKEN = re.compile(r"\w+|[^\w\s]")
_BATCH = 256


def count_tokens(texts: Sequence[str], mix: Mix) -> NDArray[np.int64]:
    r"""Tokens by document: int64 `[n_documents]`. Raises RecipeError when the recipe's tokenizer cannot be read.

    `words`: runs of `\w` and punctuation marks, one each; a subword tokenizer makes 1.2 to 1.4 times as many of English.
    Special tokens that a tokenizer puts around a text are not counted.
    """
    if mix.tokenizer == WORDS:
        return np.fromiter((len(_TOKEN.findall(text)) for text in texts), np.int64, len(texts))
    tokenizer = _tokenizer(mix.tokenizer.removeprefix("file:"))
    counts: list[int] = []
    for start in range(0, len(texts), _BATCH):
        encoded = tokenizer.encode_batch_fast(list(texts[start : start + _BATCH]), add_special_tokens=False)
        counts += map(len, encoded)
    return np.array(counts, np.int64)


@cache
def _tokenizer(path: str) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception for a file that is none of its own
        raise RecipeError(
            f"prepare.mix.tokenizer, {path}",
            expected="a tokenizer.json of the tokenizers library, readable by every worker",
            got=str(error).splitlines()[0][:200],
            remedy="correct the path, or count words",
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
