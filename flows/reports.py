"""What a run leaves to look at in the Prefect UI, and the progress that the terminal shows."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import httpx
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from lake.bucket import Bucket
from lake.records import Checkpoint, CheckReport

if TYPE_CHECKING:
    from training.finetune import TrainProgress

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def shown(create: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Create an artifact. The work goes on without a Prefect server to look at it: then None, and a line in the log."""
    try:
        return create(*args, **kwargs)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("not shown in the Prefect UI: %s: %s", type(error).__name__, error)
        return None


@contextmanager
def training_progress(path: Path) -> Iterator[Callable[[TrainProgress], None]]:
    """Yield a callback that shows training progress in the Prefect UI and in `path`, for other processes to read."""
    artifact = shown(create_progress_artifact, progress=0.0, key="training-progress", description="training")
    path.parent.mkdir(parents=True, exist_ok=True)

    def show(progress: TrainProgress) -> None:
        told = {
            "step": progress.step,
            "n_steps": progress.n_steps,
            "loss": round(progress.loss, 4),
            "tokens_per_s": round(progress.tokens_per_s, 1),
            "eta_s": round(progress.eta_s, 1),
        }
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(told))
        os.replace(partial, path)
        if artifact is not None:
            shown(
                update_progress_artifact,
                artifact_id=artifact,  # type: ignore[arg-type]  # a UUID here; the coroutine type is for async callers
                progress=100.0 * progress.step / progress.n_steps,
                description="step {step} of {n_steps}, loss {loss}, {tokens_per_s} tokens/s, {eta_s} s left".format(
                    **told
                ),
            )

    yield show


def loss_curve_artifact(bucket: Bucket, checkpoint: Checkpoint) -> None:
    """The loss curve inside the artifact itself, so that it shows without a login at the object store."""
    png = base64.b64encode(bucket.get(checkpoint.loss_curve_key)).decode()
    create_markdown_artifact(
        f"![loss](data:image/png;base64,{png})\n\n"
        f"{checkpoint.n_steps} steps, {checkpoint.n_tokens:,} tokens on {checkpoint.device} ({checkpoint.precision}) "
        f"in {checkpoint.duration_s:.0f} s; validation loss {checkpoint.validation_loss:.3f}",
        key="loss-curve",
        description=f"{checkpoint.model} {checkpoint.version}",
    )


def data_check_artifact(bucket: Bucket, report: CheckReport) -> None:
    """What the data gate found, its picture inside the artifact, and the way to the Data Docs."""
    folder = report.data_docs_key.rpartition("/")[0]
    told, png = (
        bucket.get(f"{folder}/report.md").decode(),
        base64.b64encode(bucket.get(f"{folder}/report.png")).decode(),
    )
    create_markdown_artifact(
        f"{told}\n![lengths, outcomes, languages and domains](data:image/png;base64,{png})\n\n"
        f"[Data Docs of this drop]({bucket.url(report.data_docs_key)})",
        key="data-docs",
        description=f"dataset {report.dataset_id}: {'passed' if report.passed else 'refused by'} the data gate",
    )
