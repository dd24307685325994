"""What runs in the forked children: the product's own processes and stages, with the waits of minutes made seconds."""

from __future__ import annotations

import io
import json
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from flows.context import Context

# Where a process that was only paused is taken for dead: 60 s in the product.
DEAD_AFTER_S = 4.0
BEAT_S = 0.5
# The wait after a first failed attempt: 2 s in the product.
BACKOFF_FIRST_S = 1.0


def preload_language() -> None:
    """The language identifier takes a second to load, in every process again."""
    from beam_jobs.clean import detect_language

    detect_language("What every child would load before its first document.")


def preload_client() -> None:
    """boto3 reads its descriptions of S3 once a process."""
    Context.from_environment().bucket.client.meta.service_model  # noqa: B018


def storage(arguments: Sequence[str]) -> None:
    from nanio.cli import main

    with mock.patch.object(sys, "argv", ["nanio", *arguments]):
        main()


def prefect_server(arguments: Sequence[str]) -> None:
    from prefect.cli import app

    with mock.patch.object(sys, "argv", ["prefect", *arguments]):
        app()


def serve() -> None:
    """`python -m flows.serve`; it converts no base model, as nothing is trained."""
    from flows import handover
    from flows import serve as served

    hasten()
    handover.subprocess = mock.Mock()  # type: ignore[attr-defined]
    served.main()


def hasten() -> None:
    """Shorten the waits. What is waited for stays the same."""
    from flows import reaper
    from lake.ledger import drops

    reaper.DEAD_AFTER_S, reaper.BEAT_S, drops.BACKOFF_FIRST_S = DEAD_AFTER_S, BEAT_S, BACKOFF_FIRST_S


def stage(name: str, model: str, subject: str, result: str) -> None:
    """Run one stage as its Prefect task does, for a drop (prepare) or a version; tell in `result` how it ended.

    Begins once `result` with `.go` is there. Only what it would tell Prefect is left out.
    """
    while not Path(f"{result}.go").exists():
        time.sleep(0.01)
    from flows import prepare_task, tasks

    prepare_task.create_table_artifact = mock.Mock()
    for told in ("create_markdown_artifact", "create_link_artifact", "data_check_artifact", "loss_curve_artifact"):
        setattr(tasks, told, mock.Mock())
    tasks.training_progress = mock.MagicMock()  # type: ignore[assignment]
    context = Context.from_environment()
    try:
        if name == "prepare":
            drop = context.ledger.drops.get(subject)
            assert drop is not None
            prepare_task.prepare.fn(context, drop.drop_id)
        else:
            _of_version(name, context, model, subject)
        outcome = {"error": None}
    except Exception as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    Path(result).write_text(json.dumps(outcome))


def _of_version(name: str, context: Context, model: str, version: str) -> None:
    from flows import tasks
    from lake.records import ExportedModel
    from training import export

    found = context.ledger.versions.get(model, version)
    assert found is not None
    checkpoint = tasks.checkpoint_of(context, model, version)
    if name == "train":
        tasks.train.fn(context, found)
    elif name == "export":
        assert checkpoint is not None
        # In this very process, which has torch imported and ends soon: 2 s and not 20.
        with mock.patch.object(export, "subprocess", mock.Mock(run=_run_here)):
            tasks.export.fn(context, checkpoint)
    else:
        records = [ExportedModel.model_validate(told) for told in context.ledger.stages.records("export", model)]
        exported = next(record for record in records if record.version == version)
        tasks.package.fn(context, exported, found)


def tiny_model(folder: str) -> None:
    from tests.tiny_model import write_tiny_model

    write_tiny_model(Path(folder))


def _run_here(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
    """`python -m module …` without another process."""
    module, arguments = command[2], command[3:]
    with (
        mock.patch.object(sys, "argv", [module, *arguments]),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        runpy.run_module(module, run_name="__main__")
    return subprocess.CompletedProcess(command, 0, "", "")
