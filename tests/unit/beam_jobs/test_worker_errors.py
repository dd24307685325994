"""Errors of workers out of what runners tell of them."""

from __future__ import annotations

import pytest

from beam_jobs.worker_errors import worker_error
from lake.errors import SourceChanged, StorageError, TidemillError

ERROR = StorageError("s3://b/k", expected="an answer from the store", got="InternalError", remedy="free some space")
# As Beam 2.77 tells of an exception in another process.
TOLD = f"""Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1498, in apache_beam.runners.common.DoFnRunner.process
  File "/srv/beam_jobs/part.py", line 100, in _read_object
    raise StorageError(where, expected=expected, got=got, remedy=remedy)
lake.errors.StorageError: {ERROR}
During handling of the above exception, another exception occurred:
lake.errors.StorageError: {ERROR} [while running 'clean-ptransform-45']
"""


def test_a_chained_error_is_found() -> None:
    outer = RuntimeError("of Beam's")
    outer.__cause__ = ValueError("between")
    outer.__cause__.__context__ = ERROR
    assert worker_error(outer) is ERROR


@pytest.mark.parametrize("text", [TOLD, f"Pipeline job-1 failed in state FAILED: {TOLD}"])
def test_an_error_that_came_as_text_is_made_again(text: str) -> None:
    found = worker_error(RuntimeError(text))
    assert type(found) is StorageError
    assert (found.where, found.expected, found.got, found.remedy) == (
        ERROR.where,
        ERROR.expected,
        ERROR.got,
        ERROR.remedy,
    )


def test_its_kind_is_kept() -> None:
    gone = SourceChanged("k", expected="the version that was listed", got="another", remedy="drop it again")
    assert type(worker_error(RuntimeError(f"\nlake.errors.SourceChanged: {gone} [while running 'x']"))) is SourceChanged


@pytest.mark.parametrize(
    "text",
    [
        "Channel closed prematurely.",
        "bundle inst004 stage-005 failed:SDK worker disconnected: worker[job-003], 2 active instructions",
    ],
)
def test_a_worker_that_died_is_told(text: str) -> None:
    found = worker_error(RuntimeError(text))
    assert isinstance(found, TidemillError)
    assert "memory" in found.remedy


def test_a_fault_of_our_own_is_not_dressed_up() -> None:
    assert worker_error(RuntimeError("Traceback …\nValueError: expected 3, got 4; no")) is None
