"""`tidemill experiment`: compare two prompts, precisions or sampling settings of a model on its live traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lake.errors import TidemillError
from lake.settings import load_settings

if TYPE_CHECKING:
    from flows.context import Context

experiment_commands = typer.Typer(
    help="Compare two arms of a model's traffic: prompts, precisions, sampling settings. Nobody is promoted by it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
out = Console()
NameArgument = Annotated[str, typer.Argument(help="the experiment's name, as in its file")]


@experiment_commands.command("start")
def start(file: Annotated[Path, typer.Argument(help="an experiment in YAML; see examples/experiment-*.yaml")]) -> None:
    """Check an experiment, package what arm b needs, and give arm b its share of the traffic.

    Another precision is exported and packaged first: a minute or two for a small model. One rollout or experiment of a
    model at a time: a version that is offered meanwhile waits for the experiment's end.
    """
    from flows.experiments import start as begin
    from lake.recipe import parse_experiment

    if not file.is_file():
        raise TidemillError(str(file), expected="an experiment's file", got="none there", remedy="see examples/")
    experiment = parse_experiment(file.read_text(errors="replace"), str(file))
    with out.status("packaging what arm b needs"):
        state = begin(_here(), experiment)
    out.print(f"{state.rollout_id} has begun: arm b is {state.challenger}", highlight=False)
    out.print(f"follow it with [bold]tidemill experiment show {experiment.name}[/]")


@experiment_commands.command("show")
def show(name: Annotated[str | None, typer.Argument(help="one in full; default: list them all")] = None) -> None:
    """List the experiments, or tell how the newest one by a name stands: each metric with its interval and outcome.

    The intervals hold at every look of the whole experiment but for a small chance, so looking often costs nothing.
    """
    from flows.experiment_report import COLUMNS, arm_in_words, conclusions, lines, named
    from flows.rollout_view import read_view
    from flows.rollout_words import stage_of

    ledger = _here().ledger
    if name is None:
        table = Table("experiment", "name", "arm a", "arm b", "state", "began (UTC)")
        for state in ledger.experiments.all():
            table.add_row(
                state.rollout_id,
                state.experiment.name if state.experiment else "",
                state.champion,
                Text(arm_in_words(state)),
                stage_of(state),
                f"{state.started_at:%m-%d %H:%M}",
            )
        out.print(table)
        return
    view = read_view(ledger, named(ledger, name).rollout_id)
    out.print(f"[bold]{view.state.rollout_id}[/]: {stage_of(view.state)}", highlight=False)
    out.print(Text(f"a: {view.state.champion} as it serves\nb: {arm_in_words(view.state)}"))
    table = Table(*COLUMNS, box=None, header_style="dim")
    for line in lines(view):
        table.add_row(*map(Text, line))
    out.print(table)
    out.print(Text(view.reason))
    for told in conclusions(view):
        out.print(Text(told, style="bold"))


@experiment_commands.command("stop")
def stop(
    name: NameArgument, reason: Annotated[str, typer.Option(help="kept with the decision")] = "an operator ended it"
) -> None:
    """End an experiment: the champion has all traffic again at the controller's next tick. What was seen stays."""
    from bentos.experiment_orders import end_experiment

    state = end_experiment(_here().ledger, name, reason)
    out.print(f"{state.rollout_id} has ended; 'tidemill experiment report {name}' tells what was seen", highlight=False)


@experiment_commands.command("report")
def report(name: NameArgument) -> None:
    """Write an experiment's report to the bucket, as it stands, and print it."""
    from flows.experiment_report import keep_experiment_report, named

    here = _here()
    prefix = keep_experiment_report(here, named(here.ledger, name).rollout_id)
    out.print(here.bucket.get(f"{prefix}report.md").decode(), markup=False, highlight=False, soft_wrap=True)
    for file in ("report.md", "report.png", "experiment.json"):
        out.print(f"s3://{here.bucket.name}/{prefix}{file}", highlight=False, soft_wrap=True)


def _here() -> Context:
    from flows.context import Context

    return Context(load_settings())
