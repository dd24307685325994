"""From an object of the prediction log to its rows, whichever version of Tidemill has written it."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from lake.records import PredictionLog


def rows_of(body: bytes) -> tuple[PredictionLog, ...]:
    """Rows of one object, in its order. Fields that its version did not know have their defaults.

    Raises ValueError saying what is wrong with a damaged one.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(body))
        known = [name for name in PredictionLog.model_fields if name in file.schema_arrow.names]
        return tuple(PredictionLog.model_validate(row) for row in file.read(columns=known).to_pylist())
    except (pa.ArrowException, ValidationError, OSError) as error:
        raise ValueError(str(error).splitlines()[0]) from error
