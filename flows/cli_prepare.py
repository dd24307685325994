"""`tidemill prepare`: the preparation job alone, on local paths or s3:// URIs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lake.errors import TidemillError
from lake.recipe import Recipe, parse_recipe
from lake.records import SPLITS, Dataset
from lake.settings import load_settings

out = Console()


def prepare(
    sources: Annotated[
        list[str], typer.Argument(metavar="SRC…", help="files, folders, 'patterns/**/*.jsonl', or s3://BUCKET/PREFIX")
    ],
    recipe: Annotated[Path, typer.Option("--recipe", "-r", help="a recipe in YAML; its 'prepare' section counts")],
    to: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="a new folder, or s3://BUCKET/PREFIX")],
    history: Annotated[
        list[str],
        typer.Option("--history", metavar="DIR", help="an earlier --out, in order of age; may be given several times"),
    ] = [],  # noqa: B006  # how typer takes a list
    runner: Annotated[str | None, typer.Option(help="local, flink, spark, dataflow or portable")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="worker processes, or the cluster's parallelism")] = None,
    flink_master: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="REST API of the JobManager")] = None,
    job_endpoint: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="a Beam job service")] = None,
    runner_option: Annotated[
        list[str],
        typer.Option("--runner-option", metavar="NAME=VALUE", help="any other field of the recipe's 'runner' section"),
    ] = [],  # noqa: B006  # how typer takes a list
    beam_option: Annotated[
        list[str], typer.Option("--beam-option", metavar="--NAME=VALUE", help="passed on to Beam as it is")
    ] = [],  # noqa: B006  # see above
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Clean, deduplicate and select documents: the very job that a drop goes through, with no service up.

    Example: **tidemill prepare crawl/ notes.jsonl --recipe docs.yaml --out prepared/monday --history prepared/sunday**

    Of a folder, everything below it is read but hidden files; links to files are followed, links to folders not.

    Leaves **shards/** (what is kept, by split), **rejects/** (everything else, each with its reason and, of duplicates,
    the document that is kept and the similarity), **metrics/**, **signatures/** and **shingles/** (the index that later
    runs take as --history), **reserve/** (left out by quotas) and **manifest.json**, which is written last.
    Look at it with **tidemill data show DIR**. The same call again finds its result and does nothing.
    """
    from flows.prepare_alone import missing_history, place_of, prepare_alone, sources_of

    # What Beam warns of at its import concerns clouds, and what its workers log of an error is told once, at the end.
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    settings = load_settings()
    told_of_runner: dict[str, Any] = {
        "name": runner or ("flink" if flink_master else None),
        "workers": workers,
        "flink_master": flink_master,
        "job_endpoint": job_endpoint,
        **{name: value for name, _, value in (option.partition("=") for option in runner_option)},
    }
    chosen = _recipe(recipe, {name: value for name, value in told_of_runner.items() if value is not None}, beam_option)
    refs, stores = sources_of(sources, settings)
    past = [place_of(each, settings) for each in history]
    for uri in missing_history(past):
        Console(stderr=True).print(
            f"[yellow]note[/] {uri} was itself compared with a history that is not given here: documents of that one are "
            "not found again",
            highlight=False,
            soft_wrap=True,
        )
    size_bytes = sum(ref.size_bytes for ref in refs)
    console = Console(stderr=True) if as_json else out
    with console.status(f"{len(refs):,} objects, {size_bytes / 1e6:,.1f} MB: starting") as status:

        def told(what: str, done: int, of: int) -> None:
            status.update(f"{what}: {done:,}{f' of {of:,}' if of else ''} chunks of {size_bytes / 1e6:,.1f} MB")

        dataset = prepare_alone(
            refs,
            stores,
            chosen,
            place_of(to, settings),
            past,
            settings.home / "base-models",
            told,
        )
    if as_json:
        out.print_json(dataset.model_dump_json())
    else:
        _show(dataset, to)


def _recipe(path: Path, told: dict[str, Any], options: list[str]) -> Recipe:
    """The recipe, where the command line says nothing else of the runner."""
    if not path.is_file():
        raise TidemillError(
            str(path), expected="a recipe in YAML", got="no file there", remedy="see examples/, or check the path"
        )
    recipe = parse_recipe(path.read_text("utf-8", "replace"), str(path))
    if options:
        told["options"] = [*recipe.runner.options, *options]
    if not told:
        return recipe
    merged = {"name": recipe.name, "runner": recipe.runner.model_dump(mode="json") | told}
    checked = parse_recipe(json.dumps(merged), f"{path} and the command line")  # what is missing is refused there
    return recipe.model_copy(update={"runner": checked.runner})


def _show(dataset: Dataset, to: str) -> None:
    table = Table("outcome", "documents", title=f"{dataset.n_read:,} documents of {dataset.n_objects:,} objects")
    table.add_row("[green]kept[/]", f"{dataset.n_kept:,}")
    for reason, n in sorted(dataset.rejected.items(), key=lambda item: -item[1]):
        table.add_row(reason, f"{n:,}")
    out.print(table)
    splits = ", ".join(f"{split} {dataset.n_documents.get(split, 0):,}" for split in SPLITS)
    out.print(f"kept: {splits}; {sum(dataset.n_tokens.values()):,} words and punctuation marks", highlight=False)
    for title, counts in (("redacted", dataset.redacted), ("tokens by domain", dataset.domains)):
        if counts:
            out.print(f"{title}: {', '.join(f'{name} {n:,}' for name, n in sorted(counts.items()))}", highlight=False)
    for found in dataset.mix:
        met = "[green]met[/]" if found["met"] else f"[yellow]missed: {found['why']}[/]"
        out.print(
            f"quota of {found['domain']}: {found['quota']:.0%}, kept {found['share']:.1%}, {met}", highlight=False
        )
    out.print(f"look at it: [bold]tidemill data show {to}[/], [bold]tidemill data sample {to}[/]", highlight=False)
