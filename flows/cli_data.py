"""`tidemill data`: the datasets that were prepared, what is in them, how two differ, and a way out for other tools."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from lake.settings import load_settings

if TYPE_CHECKING:
    from flows.dataset_diff import Difference
    from flows.dataset_sample import Seen

data_commands = typer.Typer(
    no_args_is_help=True,
    help="Look at prepared datasets: list, show, compare, sample, export.\n\n"
    "A DATASET is an id that **tidemill data list** shows, the beginning of one, MODEL/latest, "
    "or a folder or s3:// prefix that **tidemill prepare** wrote.",
)
out = Console()

DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="id or its beginning, MODEL/latest, a folder, or s3://BUCKET/PREFIX")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


@data_commands.command("list")
def list_datasets(
    model: Annotated[str | None, typer.Argument(help="only this model")] = None, as_json: JsonOption = False
) -> None:
    """List the datasets whose files are in the bucket, oldest first, with what became of their drop.

    Example: **tidemill data list docs-assistant**
    """
    from flows.context import Context
    from flows.dataset_find import known_models, stored_datasets
    from flows.dataset_views import list_view
    from lake.errors import TidemillError

    context = Context(load_settings())
    models = known_models(context)
    if model is not None and model not in models:
        raise TidemillError(
            f"model {model}",
            expected=f"one of {', '.join(models) or '(none is registered)'}",
            got=repr(model),
            remedy="register it with 'tidemill models add RECIPE'",
        )
    states = {state.drop_id: state.state for state in context.ledger.drops.states(model)}
    found = [stored for name in models if model in (None, name) for stored in stored_datasets(context, name)]
    rows = [(stored, states.get(stored.dataset.drop_id, "-")) for stored in found]
    if as_json:
        out.print_json(
            json.dumps([stored.dataset.model_dump(mode="json") | {"state": state} for stored, state in rows])
        )
    elif rows:
        out.print(list_view(rows))
    else:
        out.print("no dataset has been prepared; drop data with [bold]tidemill drop[/]")


@data_commands.command()
def show(
    dataset: DatasetArgument,
    sources: Annotated[int, typer.Option(min=0, help="source objects to show, most documents first")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show what a dataset holds: splits, languages, domains, what was rejected and redacted, sources, size.

    Examples: **tidemill data show docs-assistant/latest**, **tidemill data show ./prepared**
    """
    from flows.context import Context
    from flows.dataset_find import find_dataset
    from flows.dataset_profile import as_json as told
    from flows.dataset_profile import profile
    from flows.dataset_views import show_view

    stored = find_dataset(Context(load_settings()), dataset)
    found = profile(stored)
    if as_json:
        out.print_json(json.dumps(told(stored, found, sources)))
    else:
        out.print(show_view(stored, found, sources))


@data_commands.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="the dataset before; named as in 'tidemill data show'")],
    b: Annotated[str, typer.Argument(metavar="B", help="the dataset after")],
    limit: Annotated[int, typer.Option(min=0, help="documents of each kind to list")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Compare two datasets document by document: which were added, dropped or changed, and why.

    Of a document that only one of them keeps, the reason is the one by which the other rejected it; of a duplicate,
    the kept document is named. Good for trying out rules: prepare the same data with two recipes, and compare.

    Examples: **tidemill data diff 3f2a 9c01**, **tidemill data diff ./before ./after --limit 50**
    """
    from flows.context import Context
    from flows.dataset_diff import compare
    from flows.dataset_find import find_dataset
    from flows.dataset_views import diff_view

    context = Context(load_settings())
    before, after = find_dataset(context, a), find_dataset(context, b)
    found = compare(before, after)
    if as_json:
        out.print_json(json.dumps({"a": before.name, "b": after.name, **_difference(found, limit)}))
    else:
        out.print(diff_view(before, after, found, limit), soft_wrap=True, highlight=False)


@data_commands.command()
def sample(
    dataset: DatasetArgument,
    n: Annotated[int, typer.Option("-n", min=1, max=1_000, help="documents to show")] = 10,
    split: Annotated[Literal["train", "validation", "test"] | None, typer.Option(help="only of this split")] = None,
    lang: Annotated[str | None, typer.Option(help="only of this language, such as en")] = None,
    domain: Annotated[str | None, typer.Option(help="only of this domain of the recipe's mix")] = None,
    reason: Annotated[
        str | None, typer.Option(help="rejects with this reason, such as near_duplicate or too_short; any: all rejects")
    ] = None,
    history: Annotated[
        list[str],
        typer.Option("--history", metavar="DATASET", help="where else to look for what is kept instead of a duplicate"),
    ] = [],  # noqa: B006  # how typer takes a list
    seed: Annotated[int, typer.Option(help="draws other documents")] = 0,
    characters: Annotated[int, typer.Option(min=1, help="of each text")] = 800,
    as_json: JsonOption = False,
) -> None:
    """Look at documents drawn at random, with what was measured of them. The same seed draws the same ones.

    Texts are those of the dataset: cleaned and redacted. Of a reject there is the reason and, where it is a duplicate,
    the document that is kept instead.

    Examples: **tidemill data sample docs/latest -n 3 --lang de**,
    **tidemill data sample docs/latest --reason near_duplicate**
    """
    from flows.context import Context
    from flows.dataset_find import find_dataset
    from flows.dataset_sample import Wanted, draw
    from flows.dataset_views import sample_view

    if split and reason:
        raise typer.BadParameter("--split is of kept documents, --reason of rejects: give one of them")
    context = Context(load_settings())
    stored, past = find_dataset(context, dataset), [find_dataset(context, each) for each in history]
    drawn, n_all = draw(stored, Wanted(split, lang, domain, reason), n, seed, past)
    if as_json:
        out.print_json(json.dumps([_seen(one) for one in drawn]))
        return
    for one in drawn:
        out.print(sample_view(one, characters, out.width), highlight=False)
    if drawn:
        out.print(f"{len(drawn)} of {n_all:,}; --seed draws others", highlight=False)
        return
    known = stored.dataset.rejected if reason else {}
    out.print(f"no such document{'; reasons here: ' + ', '.join(known) if known else ''}", highlight=False)
    raise typer.Exit(1)


@data_commands.command()
def export(
    dataset: DatasetArgument,
    folder: Annotated[Path, typer.Option("--out", help="new or empty folder to write to")],
    kind: Annotated[
        Literal["jsonl", "jsonl.gz", "parquet", "datasets"],
        typer.Option("--format", help="a file a split; datasets: a folder for Hugging Face load_from_disk"),
    ] = "jsonl",
    columns: Annotated[str | None, typer.Option(help="only these, as in: id,text,lang")] = None,
) -> None:
    """Write the kept documents for other tools, split by split, file by file: memory does not grow with the dataset.

    Examples: **tidemill data export docs/latest --format datasets --out hf** and then
    *datasets.load_from_disk("hf")*; **tidemill data export docs/latest --out data** and then
    *load_dataset("json", data_files={"train": "data/train.jsonl"})*
    """
    from flows.context import Context
    from flows.dataset_export import export as write
    from flows.dataset_find import find_dataset

    names = [name.strip() for name in (columns or "").split(",") if name.strip()]
    counts = write(find_dataset(Context(load_settings()), dataset), kind, folder, names)
    for split, n in counts.items():
        out.print(f"{split:10} {n:>10,} documents", highlight=False)
    out.print(str(folder), highlight=False, markup=False)


def _difference(found: Difference, limit: int) -> dict[str, object]:
    return {
        "summary": found.summary(),
        "changed": [{"a": asdict(old), "b": asdict(new)} for old, new in found.changed[:limit]],
        "dropped": [asdict(one) for one in found.dropped[:limit]],
        "added": [asdict(one) for one in found.added[:limit]],
    }


def _seen(one: Seen) -> dict[str, object]:
    return {**one.metrics, **one.row, "kept_instead": one.kept and {**one.kept, "dataset_id": one.kept_in}}
