"""Labelled seeds: the texts that the classifier learns domains from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lake.errors import RecipeError
from lake.recipe import Mix

# Of a long seed the beginning is enough, and one file of them fits into memory.
MAX_SEED_CHARACTERS, MAX_FILE_BYTES = 20_000, 500_000_000


class Seed(NamedTuple):
    text: str
    domain: str


def seeds_of(mix: Mix) -> list[Seed]:
    """The examples in the recipe and those of its files. Raises RecipeError when they do not teach two domains."""
    seeds = [Seed(text, name) for name, domain in mix.domains.items() for text in domain.examples]
    for path in mix.seeds:
        seeds += _read(Path(path.removeprefix("file:")), mix.labels)
    counts = Counter(seed.domain for seed in seeds)
    if seeds and len(counts) < 2:
        raise RecipeError(
            "prepare.mix",
            expected=f"seeds of at least two of the domains {', '.join(mix.labels)}",
            got=", ".join(f"{n} of {domain}" for domain, n in counts.items()),
            remedy="add examples of another domain; 20 of each are a good start, those of 'other' sharpen all of them",
        )
    return [Seed(text[:MAX_SEED_CHARACTERS], domain) for text, domain in seeds]


def _read(path: Path, labels: tuple[str, ...]) -> Iterator[Seed]:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise _refusal(path, f"at most {MAX_FILE_BYTES} bytes", f"{size_bytes} bytes", "leave seeds out")
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _seed(line, f"{path}:{number}", labels)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _refusal(path, "a file of labelled seeds", reason, "put it there, readable by every worker") from error
    except UnicodeDecodeError as error:
        raise _refusal(path, "UTF-8", str(error), "store the file as UTF-8") from error


def _seed(line: str, where: str, labels: tuple[str, ...]) -> Seed:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _refusal(where, "a JSON object a line", str(error), "correct the line") from error
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise _refusal(where, '{"text": …, "domain": …}', type(row).__name__ + " without a text", "correct the line")
    if row.get("domain") not in labels:
        found = repr(row.get("domain"))[:100]
        raise _refusal(where, f"domain {' or '.join(labels)}", found, "correct the line, or add the domain to the mix")
    return Seed(row["text"], row["domain"])


def _refusal(where: Path | str, expected: str, got: str, remedy: str) -> RecipeError:
    return RecipeError(f"prepare.mix.seeds, {where}", expected=expected, got=got, remedy=remedy)
