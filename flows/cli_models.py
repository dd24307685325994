"""`tidemill models`: the versions of each model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lake.errors import TidemillError
from lake.settings import load_settings

models_commands = typer.Typer(help="List the models and their versions, or add a recipe.", invoke_without_command=True)
out = Console()

ModelArgument = Annotated[str, typer.Argument(help="name of the model, as in its recipe")]


@models_commands.callback()
def models(context: typer.Context) -> None:
    """List every model with its versions: state, cause, perplexity, and why a challenger lost."""
    if context.invoked_subcommand is not None:
        return
    from flows.context import Context

    here = Context(load_settings())
    table = Table(
        "model", "version", "state", "because of", "parent", "perplexity base → this", "live since", "message"
    )
    for name in here.models():
        try:
            here.recipe(name)
        except TidemillError as error:
            table.add_row(name, "-", "[red]recipe refused[/]", "", "", "", "", str(error))
            continue
        evaluated = {record["version"]: record for record in here.ledger.stages.records("evaluate", name)}
        versions = here.ledger.versions.all(name)
        if not versions:
            table.add_row(name, "-", "no version yet", "", "", "", "", f"drop data into inbox/{name}/")
        for version in versions:
            scores = evaluated.get(version.version, {}).get("perplexity") or [None]
            table.add_row(
                name,
                version.version,
                f"[bold green]{version.state}[/]" if version.state == "champion" else version.state,
                version.reason,
                version.parent or "-",
                f"{scores[0]['base']:.2f} → {scores[0]['challenger']:.2f}" if scores[0] else "-",
                f"{version.live_at:%Y-%m-%d %H:%M:%S}" if version.live_at else "-",
                version.message or "",
            )
    out.print(table)


@models_commands.command("add")
def add_model(recipe: Annotated[Path, typer.Argument(help="a recipe in YAML; see examples/")]) -> None:
    """Check a recipe and put it into the bucket: that registers the model."""
    from flows.context import Context
    from lake.layout import inbox_prefix, recipe_key
    from lake.recipe import parse_recipe

    if not recipe.is_file():
        raise TidemillError(str(recipe), expected="a recipe file", got="none there", remedy="see examples/")
    context = Context(load_settings())
    parsed = parse_recipe(recipe.read_text(), str(recipe))
    context.bucket.put(recipe_key(parsed.name), recipe.read_bytes(), "application/yaml")
    out.print(f"{parsed.name} is registered; drop data into s3://{context.bucket.name}/{inbox_prefix(parsed.name)}")
