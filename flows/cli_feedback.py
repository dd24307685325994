"""`tidemill feedback`: say how good an answer was."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from lake.errors import TidemillError
from lake.settings import load_settings

out = Console()


def feedback(
    model: Annotated[str, typer.Argument(help="name of the model, as in its recipe")],
    request_id: Annotated[str, typer.Argument(help="the header x-request-id of the answer")],
    score: Annotated[float | None, typer.Argument(help="from 0 (useless) to 1 (just right)")] = None,
    expected: Annotated[
        str | None, typer.Option(help="the right answer instead: an answer that is it scores 1, any other 0")
    ] = None,
) -> None:
    """Say how good an answer was: a rollout that checks **feedback** compares what both versions were given.

    One score a request counts, the first. Programs put JSON lines under feedback/MODEL/ in the bucket instead.

    Example: **tidemill feedback docs-assistant 7c9e6679-7425-40de-944b-e07fc1f90ae7 1**
    """
    from flows.context import Context
    from flows.rollout_feedback import Feedback
    from lake.layout import feedback_key

    try:
        given = Feedback(request_id=request_id, score=score, expected=expected)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise TidemillError(
            "feedback",
            expected="a request id, and a score from 0 to 1 or the right answer",
            got=f"{'.'.join(map(str, problem['loc'])) or 'neither'}: {problem['msg']}",
            remedy="for example 'tidemill feedback docs-assistant REQUEST_ID 0.5'",
        ) from error
    context = Context(load_settings())
    if model not in context.models():
        raise TidemillError(
            f"model {model}",
            expected=f"one of {', '.join(context.models()) or '(none is registered)'}",
            got=repr(model),
            remedy="register it with 'tidemill models add RECIPE'",
        )
    key = feedback_key(model, datetime.now(UTC), uuid.uuid4().hex[:8])
    line = given.model_dump_json(exclude_none=True) + "\n"
    context.bucket.put(key, line.encode(), "application/jsonl")
    out.print(f"s3://{context.bucket.name}/{key}", highlight=False)
