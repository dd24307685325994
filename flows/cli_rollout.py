"""`tidemill rollout`: how versions come to the traffic, what was decided and why, and a person's say in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.cli_models import ModelArgument
from lake.errors import TidemillError
from lake.settings import load_settings

if TYPE_CHECKING:
    from flows.context import Context
    from flows.rollout_traffic import Estimate
    from lake.recipe import Recipe
    from lake.records import CheckResult

rollout_commands = typer.Typer(
    help="Show rollouts and why they went as they did; explain a plan, watch one, approve, undo or roll back.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
)
out = Console()
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="only this model")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
RolloutArgument = Annotated[str, typer.Argument(help="as 'tidemill rollout' lists it, e.g. docs-v2-1")]
ReasonOption = Annotated[str, typer.Option(help="kept with the decision")]


@rollout_commands.callback()
def rollout(
    context: typer.Context,
    model: ModelOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="the newest ones to show")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show all rollouts as a timeline, newest last: time by stage, outcome, and why.

    **tidemill rollout show** ID tells one in full, **tidemill rollout watch** follows the one under way,
    **tidemill rollout plan** MODEL explains what a model's challengers have to go through. The same, with plots, is on
    the status page, whose address 'tidemill status' shows.
    """
    if context.invoked_subcommand is not None:
        return
    from flows.rollout_timeline import timeline, timeline_lines

    ledger = _here().ledger
    rows = timeline(ledger, model, limit)
    if as_json:
        out.print_json(json.dumps([row.as_json() for row in rows]))
        return
    for line in timeline_lines(rows):
        out.print(line, highlight=False)
    for alarm in ledger.alarms.open():
        out.print(
            Text(f"ALARM since {alarm.raised_at:%m-%d %H:%M}  {alarm.subject}: {alarm.message}", style="bold red")
        )


@rollout_commands.command("show")
def show(rollout_id: RolloutArgument, as_json: JsonOption = False) -> None:
    """Tell one rollout in full: every decision with the evidence that it rests on.

    *worse by* is how much worse the challenger is than the champion: points of a percentage (pt), a difference, or a
    factor (×). The interval holds at every look of the whole rollout but for a small chance, so looking often costs
    nothing. *p* is the chance of so much evidence were the challenger no worse than the margin.
    """
    from flows.rollout_view import as_json as told
    from flows.rollout_view import read_view
    from flows.rollout_words import decision_in_words, split_in_words, stage_of, versus

    view = read_view(_here().ledger, rollout_id)
    if as_json:
        out.print_json(json.dumps(told(view)))
        return
    out.print(f"[bold]{rollout_id}[/]  {versus(view.state)}: [bold]{stage_of(view.state)}[/]", highlight=False)
    for decision in view.decisions:
        out.print(Text(f"\n{decision.decided_at:%Y-%m-%d %H:%M:%S} {decision_in_words(decision)}", style="bold"))
        if decision.split is not None:
            out.print(Text(f"split {split_in_words(decision.split)}"))
        if decision.checks:
            out.print(_evidence(decision.checks))


@rollout_commands.command("report")
def report(rollout_id: RolloutArgument) -> None:
    """Write a rollout's report to the bucket again: words, plots and all decisions as JSON.

    The flow that waits for a rollout does so at every decision. This is for rollouts that nothing waited for.
    """
    from flows.rollout_report import write_rollout_report

    here = _here()
    prefix = write_rollout_report(here, rollout_id).prefix
    for name in ("report.md", "report.png", "decisions.json"):
        out.print(f"s3://{here.bucket.name}/{prefix}{name}", highlight=False, soft_wrap=True)


@rollout_commands.command("plan")
def plan(
    of: Annotated[str, typer.Argument(metavar="MODEL|RECIPE-FILE", help="a model, or a recipe that is not in use yet")],
    requests_per_s: Annotated[
        float | None, typer.Option("--requests-per-s", "-r", min=1e-9, help="traffic; default: as it was lately")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a rollout plan: each step, each check, what rolls back, what only warns, what holds.

    With the traffic, told by **--requests-per-s** or taken from the prediction log's last hour, it estimates how long
    each step takes, which differences the plan would notice, and what can never get enough data. A plan that cannot be
    is refused, with what is allowed.
    """
    from flows.rollout_plan_words import explained
    from flows.rollout_scorers import tellable, untellable
    from flows.rollout_traffic import estimate

    recipe, here = _recipe(of)
    rules = tellable(recipe.rollout, recipe)
    rate = requests_per_s if requests_per_s is not None else _recent_rate(here, recipe)
    estimated = estimate(rules, rate, recipe.monitoring.log_share) if rate else None
    if as_json:
        told = {"model": recipe.name, "plan": rules.model_dump(mode="json"), "estimate": None}
        if estimated is not None:
            told["estimate"] = {
                **estimated._asdict(),
                "steps": [step._asdict() for step in estimated.steps],
                "detections": [found._asdict() for found in estimated.detections],
            }
        out.print_json(json.dumps(told))
        return
    for paragraph in explained(rules):
        out.print(Text(paragraph.heading, style="bold"))
        for line in paragraph.lines:
            out.print(Text.assemble("  ", line) if len(line) < out.width - 4 else _indented(line))
    for metric, reason in untellable(recipe).items():
        out.print(f"left out: {metric}; {reason}")
    if estimated is None:
        out.print("\nNo traffic is known: add --requests-per-s for times and for what the plan would notice.")
        return
    _print_estimate(estimated)


@rollout_commands.command("watch")
def watch(
    model: Annotated[str | None, typer.Argument(help="default: whichever rollout is under way")] = None,
    once: Annotated[bool, typer.Option("--once", help="print it as it is now, and end")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="a line of JSON whenever something has changed")] = False,
) -> None:
    """Follow a rollout until it ends: stage, split, samples, every check's interval against its margin, verdicts, alarms.

    Each check is a bar from better (left) to worse (right) with its estimate and interval; a check rolls back when the
    whole interval lies beyond the margin. Exit status: 1 when it was rolled back, else 0.
    """
    from flows.rollout_watch import watch as follow

    ended = follow(_here().ledger, out, model, once=once, json_lines=as_json)
    if ended.state == "rolled_back":
        raise typer.Exit(1)


@rollout_commands.command("start")
def start_rollout(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="a packaged version, e.g. v2")],
    inject_error_rate: Annotated[
        float, typer.Option(min=0, max=1, help="for drills: share of the challenger's answers that fail")
    ] = 0.0,
) -> None:
    """Offer a packaged version to the traffic again, by the recipe's plan."""
    from flows.prefect_api import start_run

    settings = load_settings()
    parameters = {"model": model, "version": version, "inject_error_rate": inject_error_rate}
    out.print(start_run(settings, "roll-out/roll-out", parameters))


@rollout_commands.command("back")
def roll_back(model: ModelArgument, reason: ReasonOption = "an operator asked for it") -> None:
    """Roll back the challenger that is under way: the champion gets all traffic at the controller's next tick.

    For one that has been promoted already it is **tidemill rollout undo**.
    """
    from bentos.orders import request_rollback

    request_rollback(_here().ledger, model, reason)
    out.print(f"{model}: rolling back; 'tidemill rollout' shows it")


@rollout_commands.command("approve")
def approve(model: ModelArgument) -> None:
    """Let the rollout under way go beyond the step that pauses for approval (**pause: approval** in the plan).

    It goes on once the step's checks allow it: an approval is no verdict, and never overrules one. Look at
    **tidemill rollout watch** MODEL **--once** before.
    """
    from bentos.orders import approve as allow

    allowed = allow(_here().ledger, model)
    out.print(f"{allowed.rollout_id}: approved; it goes on once its checks allow it: 'tidemill rollout watch {model}'")


@rollout_commands.command("undo")
def undo(model: ModelArgument, reason: ReasonOption = "an operator took it back") -> None:
    """Take the last promotion back: the champion before gets all traffic at once, without a rollout.

    Its replica is kept ready for a while after a promotion (**retain_champion_s** in the plan); after that it has to be
    started first, and gets the traffic once it is ready. A rollout under way ends. To go back further, or with checks:
    **tidemill rollout start** MODEL VERSION.
    """
    from bentos.orders import undo as take_back

    undone = take_back(_here().ledger, model, reason)
    out.print(
        f"{model}: {undone.champion} gets all traffic instead of {undone.challenger}; 'tidemill rollout' shows it"
    )


def _here() -> Context:
    from flows.context import Context

    return Context(load_settings())


def _recipe(of: str) -> tuple[Recipe, Context | None]:
    """The recipe in a file, or that of a model, with the installation that it is in use at."""
    from lake.recipe import parse_recipe

    path = Path(of)
    if path.is_file():
        return parse_recipe(path.read_text(errors="replace"), of), None
    if path.suffix in (".yaml", ".yml") or "/" in of:
        raise TidemillError(of, expected="a recipe file, or a model's name", got="no such file", remedy="see examples/")
    here = _here()
    if of not in here.models():
        raise TidemillError(
            f"model {of}",
            expected=f"a recipe file, or one of {', '.join(here.models()) or '(none is registered)'}",
            got=repr(of),
            remedy="register it with 'tidemill models add RECIPE', or name the recipe's file",
        )
    return here.recipe(of), here


def _recent_rate(here: Context | None, recipe: Recipe) -> float | None:
    if here is None or recipe.monitoring.log_share <= 0:
        return None
    from flows.rollout_recent import recent_requests_per_s

    return recent_requests_per_s(here.address, recipe.name, recipe.monitoring.log_share)


def _indented(line: str) -> Table:
    grid = Table.grid()
    grid.add_column(width=2)
    grid.add_column(overflow="fold")
    grid.add_row("", Text(line))
    return grid


def _evidence(checks: tuple[CheckResult, ...]) -> Table:
    """All that a terminal has room for: both versions' own figures in a wide one only."""
    from flows.rollout_words import EVIDENCE, evidence_row, verdict_in_short

    shown = [name for name in EVIDENCE if out.width >= 100 or name not in ("champion", "challenger")]
    table = Table(*shown, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for check in checks:
        warns = " (warns)" if check.severity == "warn" else ""
        told = {**dict(zip(EVIDENCE, evidence_row(check), strict=True)), "verdict": f"{verdict_in_short(check)}{warns}"}
        style = "bold red" if check.verdict == "worse" and check.severity == "fail" else ""
        table.add_row(*(Text(told[name]) for name in shown), style=style)
    return table


def _print_estimate(found: Estimate) -> None:
    from flows.rollout_words import duration_in_words, effect_in_words

    out.print(Text(f"\nAt {found.requests_per_s:.3g} requests/s (all of this is estimated)", style="bold"))
    table = Table("step", "challenger", "champion", "goes on after", "because of", box=None, header_style="dim")
    for step in found.steps:
        shortest = "NEVER" if step.shortest_s is None else duration_in_words(step.shortest_s)
        rates = (f"{step.challenger_per_s:.3g}/s", f"{step.champion_per_s:.3g}/s")
        table.add_row(f"{step.number} {step.name}", *rates, shortest, step.waits_for)
    out.print(table)
    if found.shortest_s is not None:
        out.print(
            f"All steps: {duration_in_words(found.shortest_s)} at the least, {duration_in_words(found.longest_s)} at the most."
        )
    out.print(Text("\nWhat would be noticed", style="bold"))
    table = Table("check", "worse by", "requests", "found after", box=None, header_style="dim")
    for detection in found.detections:
        when = "not by then" if detection.after_s is None else duration_in_words(detection.after_s)
        n = "never" if detection.n_challenger is None else f"{detection.n_challenger:,}"
        name = detection.metric + (" (warns)" if detection.severity == "warn" else "")
        table.add_row(name, effect_in_words(detection.metric, detection.effect), n, when)
    out.print(table)
    out.print(
        "Requests of the challenger until about half of such challengers are found; 'not by then': a plan that goes on as "
        "soon as it may is over before. Raise min_requests for smaller differences.",
        highlight=False,
    )
    for warning in found.warnings:
        out.print(Text(f"WARNING {warning}", style="bold yellow"))
