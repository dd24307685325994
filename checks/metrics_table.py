"""The metrics of a dataset: a row for each document that was read, without its text."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lake.records import Dataset
from lake.store import Store
from lake.tables import tables_of

REQUIRED = ("id", "reason", "lang", "n_characters", "n_words", "letters_share", "repetition", "pii_leaks")
NUMBERS = ("n_characters", "n_words", "n_tokens", "letters_share", "repetition", "pii_leaks")
# What drift is measured against: enough for shares to a tenth of a percent, read in a second.
HISTORY_ROWS = 200_000
_LATER = ("place_id", "domain", "n_tokens")  # a dataset of an earlier version is judged without
_COMPARED = ("n_words", "n_tokens", "lang", "domain")


def read_metrics(store: Store, dataset: Dataset) -> pd.DataFrame:
    """One row for each document that was read; `reason` is null for a kept one.

    Columns are those of `REQUIRED`, `place_id`, `domain` and `n_tokens` that every part of the dataset has. A column
    whose parts differ in type is text. Raises StorageError.
    """
    return _joined(list(tables_of(store, dataset.prefix, "metrics", (*REQUIRED, *_LATER))))


def read_history(store: Store, history: Sequence[Dataset]) -> pd.DataFrame:
    """Kept documents of the newest datasets, `HISTORY_ROWS` or a little more: `n_words`, `n_tokens`, `lang`, `domain`.

    Without a column that one of those datasets lacks. Raises StorageError.
    """
    taken: list[pa.Table] = []
    for dataset in reversed(history):
        if sum(map(len, taken)) >= HISTORY_ROWS:
            break
        for table in tables_of(store, dataset.prefix, "metrics", ("reason", *_COMPARED)):
            kept = table.filter(pc.is_null(table["reason"])) if "reason" in table.column_names else table.slice(0, 0)
            taken.append(kept.select([name for name in _COMPARED if name in kept.column_names]))
            if sum(map(len, taken)) >= HISTORY_ROWS:
                break
    return _joined(taken)


def _joined(parts: Sequence[pa.Table]) -> pd.DataFrame:
    if not parts:
        return pd.DataFrame()
    names = [name for name in parts[0].column_names if all(name in part.column_names for part in parts)]
    columns = {name: _column([part[name] for part in parts]) for name in names}
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame


def _column(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    # `permissive`: a part without rejects types its `reason` as null.
    try:
        return pa.concat_tables([pa.table({"": part}) for part in parts], promote_options="permissive")[""]
    except pa.ArrowException:
        return pa.chunked_array([chunk for part in parts for chunk in part.cast(pa.string()).chunks], pa.string())
