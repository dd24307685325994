"""What a reader needs to know about the object that it reads, or the file in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from beam_jobs.formats.columns import Columns
from beam_jobs.formats.content import Content
from beam_jobs.formats.extracted import Extracted
from beam_jobs.formats.inflate import Budget
from lake.recipe import PrepareRules


@dataclass(frozen=True)
class Source:
    """`read` is how an archive has the files in it read. `depth` counts what it is packed in."""

    name: str
    rules: PrepareRules
    columns: Columns
    seen_columns: Counter[str] | None
    budget: Budget
    read: Callable[[Content, Source], Iterator[Extracted]]
    depth: int = 0


Reader = Callable[[Content, Source], Iterator[Extracted]]
