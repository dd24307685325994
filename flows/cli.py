"""The `tidemill` command."""

from __future__ import annotations

import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from flows import cli_erase, cli_feedback, cli_prepare
from flows.cli_data import data_commands
from flows.cli_experiment import experiment_commands
from flows.cli_ledger import ledger_commands
from flows.cli_models import ModelArgument, models_commands
from flows.cli_rollout import rollout_commands
from lake.errors import TidemillError
from lake.settings import Settings, load_settings

commands = typer.Typer(
    name="tidemill",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Drop data in a bucket, get a live, monitored model.\n\n"
    "Start with **tidemill demo** (about 20 minutes, all of it), or: **tidemill up**, **tidemill models add** RECIPE, "
    "**tidemill drop** FILES --model NAME, **tidemill ask** NAME QUESTION. "
    "State lives in the folder TIDEMILL_HOME (.tidemill); every setting is a TIDEMILL_* variable.",
)
commands.add_typer(data_commands, name="data")
commands.add_typer(ledger_commands, name="ledger")
commands.add_typer(models_commands, name="models")
commands.add_typer(rollout_commands, name="rollout")
commands.add_typer(experiment_commands, name="experiment")
commands.command()(cli_prepare.prepare)
commands.command()(cli_feedback.feedback)
commands.command()(cli_erase.erase)
commands.command()(cli_erase.erasures)
out = Console()


def main() -> None:
    """Entry point: a TidemillError is printed with its remedy, without a traceback; Ctrl-C exits with 130."""
    # SIGTERM ends like Ctrl-C, so that whatever was started is stopped in order.
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        commands()
    except TidemillError as error:
        Console(stderr=True).print(f"[bold red]error[/] {error.where}", highlight=False, soft_wrap=True)
        for name in ("expected", "got", "remedy"):
            Console(stderr=True).print(f"  [bold]{name:9}[/]", end="")
            Console(stderr=True).print(getattr(error, name), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@commands.command()
def up() -> None:
    """Start everything on this machine, or what is missing of it; safe to repeat.

    Runs under a supervisor in the background: object storage (unless TIDEMILL_S3_ENDPOINT_URL names another),
    Prefect server and workers, the watcher, Envoy, the rollout controller and the model replicas.
    """
    from flows.supervisor import up as start

    settings = load_settings()
    with out.status("starting"):
        start(settings, _told)
    _where_to_look(settings)


@commands.command()
def down() -> None:
    """Stop everything that 'tidemill up' started. State stays in TIDEMILL_HOME."""
    from flows.supervisor import down as stop

    with out.status("stopping"):
        stop(load_settings(), _told)


@commands.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Show the processes, the live versions and where to look."""
    from flows.supervisor import status as processes

    settings = load_settings()
    found = processes(settings)
    if as_json:
        out.print_json(json.dumps([vars(process) for process in found], default=str))
        return
    table = Table("process", "state", "pid", "up", "memory", "at")
    for process in found:
        table.add_row(
            process.name,
            f"[green]{process.state}[/]" if process.state == "running" else f"[red]{process.state}[/]",
            str(process.pid or "-"),
            f"{process.uptime_s:.0f} s" if process.uptime_s is not None else "-",
            f"{process.memory_bytes / 1e6:.0f} MB" if process.memory_bytes else "-",
            process.url or "",
        )
    out.print(table)
    if not any(process.state == "running" for process in found):
        out.print("nothing runs; start with [bold]tidemill up[/]")
        raise typer.Exit(1)
    _where_to_look(settings)


@commands.command()
def doctor() -> None:
    """Say what is wrong on this machine and what to do about it. Exit status 1 if anything is."""
    from flows.doctor import diagnose

    findings = diagnose(load_settings())
    table = Table("", "what", "found", "remedy")
    for finding in findings:
        table.add_row("[green]✓[/]" if finding.ok else "[red]✗[/]", finding.name, finding.detail, finding.remedy or "")
    out.print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@commands.command()
def drop(
    files: Annotated[list[Path], typer.Argument(help="data files: .jsonl .json .parquet .txt .md .html, also .gz")],
    model: Annotated[str, typer.Option("--model", "-m", help="model that the data is for")],
) -> None:
    """Copy files into a model's inbox in the bucket. 'aws s3 cp' or any other S3 client does as well.

    Example: **tidemill drop notes/*.jsonl.gz --model docs-assistant**
    """
    from flows.context import Context
    from lake.layout import inbox_prefix

    context = Context(load_settings())
    _known(context, model)
    for path in files:
        if not path.is_file():
            raise TidemillError(str(path), expected="a file", got="none there", remedy="check the path")
    for path in files:
        key = f"{inbox_prefix(model)}{path.name}"
        context.bucket.upload(path, key)
        out.print(f"s3://{context.bucket.name}/{key}  {path.stat().st_size:,} bytes", highlight=False)
    out.print("follow it with [bold]tidemill runs[/] or in the Prefect UI: " + context.settings.prefect_ui_url)


@commands.command()
def runs(
    model: Annotated[str | None, typer.Option("--model", "-m", help="only this model")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="drops and flow runs to show")] = 15,
) -> None:
    """Show the drops and what became of them, then the newest flow runs."""
    from flows.context import Context
    from flows.prefect_api import recent_runs

    context = Context(load_settings())
    table = Table("drop", "model", "state", "since", "objects", "dataset", "message", title="Drops")
    states = context.ledger.drops.states(model)[-limit:]
    sizes = context.ledger.drops.sizes([state.drop_id for state in states])
    for state in states:
        table.add_row(
            state.drop_id,
            state.model,
            state.state,
            _ago(state.updated_at),
            str(sizes[state.drop_id]),
            state.dataset_id or "-",
            state.message or "",
        )
    out.print(table)
    table = Table("flow run", "state", "seconds", "message", title="Flow runs")
    for run in recent_runs(context.settings, limit):
        message = (run.get("state") or {}).get("message") or ""
        table.add_row(run["name"], run["state_name"], f"{run['total_run_time']:.0f}", message[:200])
    out.print(table)


@commands.command()
def ask(
    model: ModelArgument,
    question: Annotated[str, typer.Argument(help="what to ask")],
    max_tokens: Annotated[int, typer.Option(min=1, max=2048)] = 128,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
) -> None:
    """Ask the live model through the public endpoint, with the stock openai client, and stream the answer."""
    import openai

    settings = load_settings()
    client = openai.OpenAI(base_url=f"{settings.gateway_url}/v1", api_key=settings.gateway_api_key, max_retries=1)
    try:
        answer = client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=max_tokens,
            temperature=temperature,
            stream=True,
        )
        for chunk in answer.parse():
            if chunk.choices and chunk.choices[0].delta.content:
                out.print(chunk.choices[0].delta.content, end="", markup=False, highlight=False)
    except openai.OpenAIError as error:
        raise TidemillError(
            f"{settings.gateway_url}/v1, model {model}",
            expected="an answer",
            got=str(error),
            remedy="'tidemill status' shows what runs, 'tidemill models' which version is live",
        ) from error
    out.print(f"\n[dim]answered by {answer.headers.get('x-tidemill-model', 'unknown')}[/]")


@commands.command()
def lineage(
    subject: Annotated[str, typer.Argument(help="MODEL, MODEL/VERSION, s3://BUCKET/KEY or inbox/MODEL/FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Trace a live model down to its source objects, or an object up to every model that saw it.

    The x-tidemill-model header of any response names its MODEL/VERSION.
    """
    from flows.context import Context
    from flows.lineage import Node
    from flows.lineage import lineage as trace

    found = trace(Context(load_settings()), subject)
    if as_json:
        out.print_json(json.dumps(found.as_dict()))
        return

    def grow(node: Node, tree: Tree | None = None) -> Tree:
        label = f"[dim]{node.kind}[/] [bold]{node.name}[/] {node.detail}"
        branch = tree.add(label) if tree else Tree(label)
        for child in node.children:
            grow(child, branch)
        return branch

    out.print(grow(found))


@commands.command()
def retrain(model: ModelArgument) -> None:
    """Train on everything dropped since the last training, however little. The challenger must win its way in.

    When nothing was, and the champion has seen what was erased since: on all that is left of its data, from the base.
    """
    from flows.context import Context
    from flows.prefect_api import start_run

    context = Context(load_settings())
    _known(context, model)
    waits = any(state.state == "waiting" for state in context.ledger.drops.states(model))
    if not waits and not context.ledger.erasures.rebuild(model, datetime.now(UTC)):
        out.print(f"nothing has been dropped for {model} since its last training")
        raise typer.Exit(1)
    out.print(start_run(context.settings, "retrain/retrain", {"model": model, "reason": "manual"}))


@commands.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="leave everything up at the end")] = False,
    summary: Annotated[Path | None, typer.Option("--summary", help="write the summary as JSON to this file")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="play it with this recipe, e.g. of another base model; default: flows/demo/recipe.yaml"),
    ] = None,
) -> None:
    """Run the whole loop on real documentation found on this machine: about 20 minutes on 2 cores, no network.

    Documents become a live model; a better one replaces it gradually under traffic; a faulty one is rolled back;
    the traffic changes, drift is detected and the model retrains itself. Needs about 3 GB of disk and 6 GB of memory.
    """
    from flows.demo.story import RECIPE, run_demo

    run_demo(keep=keep, summary_file=summary, console=out, recipe_file=recipe or RECIPE)


def _known(context: object, model: str) -> None:
    from flows.context import Context

    if isinstance(context, Context) and model not in context.models():
        raise TidemillError(
            f"model {model}",
            expected=f"one of {', '.join(context.models()) or '(none is registered)'}",
            got=repr(model),
            remedy="register it with 'tidemill models add RECIPE'",
        )


def _told(what: str, state: str) -> None:
    out.print(f"  {what:18} {state}", highlight=False)


def _where_to_look(settings: Settings) -> None:
    out.print(f"Prefect UI   {settings.prefect_ui_url}", highlight=False)
    out.print(f"rollouts     {settings.status_url}", highlight=False)
    out.print(f"endpoint     {settings.gateway_url}/v1   (key: {settings.home}/secrets.json, api_key)", highlight=False)
    out.print(f"bucket       s3://{settings.bucket} at {settings.s3_url}", highlight=False)
    if settings.webhook_port:
        where = f"http://{settings.webhook_host}:{settings.webhook_port}/events"
        out.print(f"events       {where}   (secret: {settings.home}/secrets.json, webhook_secret)", highlight=False)
    out.print(f"logs         {settings.home}/logs", highlight=False)


def _ago(at: datetime) -> str:
    seconds = (datetime.now(UTC) - at).total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
