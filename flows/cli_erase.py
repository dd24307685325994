"""`tidemill erase` and `tidemill erasures`."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from lake.errors import TidemillError
from lake.settings import load_settings

if TYPE_CHECKING:
    from flows.context import Context
    from flows.erase_plan import Plan
    from flows.purge import ErasureStatus

out = Console()
_SHOWN = 10
# What was looked at for text of documents, and holds none; `docs/decisions/0008-erasure.md` says why.
HOLD_NO_TEXT = (
    "metrics, signatures and Data Docs (numbers, hashes)",
    "evaluation, training and drift reports (figures, and what clients asked)",
    "prediction logs (what clients asked and were answered, not documents)",
    "the ledger and manifests (ids, counts, keys)",
)


def erase(
    subjects: Annotated[
        list[str] | None, typer.Argument(help="s3://BUCKET/KEY, inbox/MODEL/FILE, document ids, or their given ids")
    ] = None,
    ids: Annotated[Path | None, typer.Option(help="file with one subject a line; - reads standard input")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="only this model; default: all")] = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="also what other sources have of the same text")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be erased, and change nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON; asks nothing, so needs --yes or --dry-run")
    ] = False,
) -> None:
    """Erase documents from all datasets for good, and have the models that saw them replaced.

    Nothing of them is read, trained on or replayed again, whatever is listed or replayed later. The object in the inbox
    is yours: delete it there too. What is still live shows in **tidemill erasures**.

    Example: **tidemill erase inbox/docs-assistant/a.txt --dry-run**
    """
    from flows.context import Context
    from flows.erase import erase as carry_out
    from flows.erase_plan import plan
    from flows.purge import purge_tainted, status

    if as_json and not (yes or dry_run):
        raise typer.BadParameter("--json asks nothing: add --yes or --dry-run")
    context = Context(load_settings())
    plans = plan(context, [*(subjects or []), *_lines(ids)], model, with_duplicates=duplicates)
    if not as_json:
        for planned in plans:
            out.print(_plan_tree(planned))
    if dry_run:
        if as_json:
            out.print_json(json.dumps({"dry_run": True, "plans": [_plan_json(planned) for planned in plans]}))
        return
    if not yes and not typer.confirm("Erase for good?"):
        raise typer.Exit(1)
    done = {erasure.erasure_id for erasure in carry_out(context, plans)}
    purge_tainted(context)
    found = [one for one in status(context) if one.erasure_id in done]
    if as_json:
        told = {
            "dry_run": False,
            "erasures": [one.model_dump(mode="json") for one in found],
            "unknown": plans[0].unknown,
            "hold_no_text": HOLD_NO_TEXT,
            "delete_yourself": _to_delete(context, plans),
        }
        out.print_json(json.dumps(told))
        return
    for one in found:
        out.print(_status_tree(one))
    out.print(f"Holds no text of documents: {'; '.join(HOLD_NO_TEXT)}.", highlight=False)
    out.print("The sources are yours, and still hold the text. Delete them, or rewrite those with other documents:")
    for command in _to_delete(context, plans):
        out.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def erasures(
    erasure_id: Annotated[str | None, typer.Argument(metavar="[ERASURE]", help="only this one")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="only this model")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List what was erased, when and by whom, and what is still live of the versions that have seen it.

    A version that saw it serves on until a clean one has won its place; its files are deleted then.
    """
    from flows.context import Context
    from flows.purge import status

    found = [one for one in status(Context(load_settings()), model) if erasure_id in (None, one.erasure_id)]
    if erasure_id is not None and not found:
        raise TidemillError(
            f"erasure {erasure_id}",
            expected="one that was asked for",
            got="none",
            remedy="'tidemill erasures' lists them",
        )
    if as_json:
        out.print_json(json.dumps([one.model_dump(mode="json") for one in found]))
        return
    for one in found:
        out.print(_status_tree(one))
    if not found:
        out.print("nothing has been erased")


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    if str(path) == "-":
        return sys.stdin.read().splitlines()
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TidemillError(
            str(path), expected="a text file with one subject a line", got=str(error), remedy="check the file"
        ) from error


def _plan_json(planned: Plan) -> dict[str, object]:
    return {
        "model": planned.model,
        "subjects": len(planned.subjects),
        "unknown": planned.unknown,
        "rebuild": planned.rebuild,
        "versions": list(planned.versions),
        **planned.found(),
    }


def _plan_tree(planned: Plan) -> Tree:
    tree = Tree(
        f"[bold]{planned.model}[/]: {len(planned.documents):,} documents, {len(planned.rejects):,} rejects, "
        f"{len(planned.keys):,} whole objects"
    )
    for dataset_id, n in planned.datasets.items():
        tree.add(f"dataset {dataset_id} is written again without {n:,} rows")
    for version, state in planned.versions:
        tree.add(f"{planned.model}/{version} ({state}) has seen them; policy: rebuild {planned.rebuild}")
    if planned.copies or planned.originals:
        branch = tree.add("[yellow]the same text from other sources[/]; --duplicates includes these:")
        for kept in planned.originals[:_SHOWN]:
            where = escape(f"{kept.source_uri} {kept.position}")
            branch.add(f"{kept.id}: kept, some of the above were dropped as its duplicates; {where}")
        for copy in planned.copies[:_SHOWN]:
            where = escape(f"{copy.source_uri} {copy.position}")
            branch.add(f"{copy.id}: dropped before as a duplicate, no text of it is here; {where}")
        if (n := max(len(planned.copies), len(planned.originals)) - _SHOWN) > 0:
            branch.add(f"and {n:,} more; --json tells them")
    if planned.unknown:
        shown = escape(", ".join(planned.unknown[:_SHOWN]))
        tree.add(f"[yellow]{len(planned.unknown):,} unknown[/]: {shown}{' …' if len(planned.unknown) > _SHOWN else ''}")
    return tree


def _status_tree(one: ErasureStatus) -> Tree:
    outcome = "gone" if one.gone else one.state
    tree = Tree(
        f"[bold]{one.erasure_id}[/] of {one.model}: [bold]{outcome}[/], by {one.requested_by} at "
        f"{one.requested_at:%Y-%m-%d %H:%M:%S}"
    )
    more = f" and {one.n_subjects - _SHOWN:,} more" if one.n_subjects > _SHOWN else ""
    tree.add(f"{escape(', '.join(one.subjects[:_SHOWN]))}{more}")
    for old, new in one.replaced.items():
        tree.add(f"dataset {old} is deleted; {new} stands for it")
    for version in one.versions:
        live = "[bold red]live[/]" if version.live else "purged" if version.purged else "not live"
        tree.add(f"{one.model}/{version.version} has seen it: {version.state}, {live}")
    if one.state == "open":
        waits = f"it waits for drop {', '.join(one.waits_for)}; " if one.waits_for else ""
        tree.add(f"[yellow]not done yet[/]: {waits}'tidemill up' goes on with it by itself")
    elif one.rebuild == "never" and one.versions:
        tree.add("the recipe's policy is never to rebuild: these versions stay")
    elif any(version.live for version in one.versions):
        tree.add(
            f"the next training of {one.model} starts from the base model, without it; 'tidemill retrain {one.model}' "
            "begins one now, on all that is left"
        )
    return tree


def _to_delete(context: Context, plans: list[Plan]) -> list[str]:
    """Commands for the user's own objects: the first ones of many."""
    endpoint = f" --endpoint-url {context.settings.s3_url}" if context.settings.s3_url else ""
    uris = {f"s3://{context.bucket.name}/{key}" for planned in plans for key in planned.keys}
    uris |= {uri for planned in plans for uri in planned.sources}
    return [f"aws s3 rm {shlex.quote(uri)}{endpoint}" for uri in sorted(uris)[:100]]
