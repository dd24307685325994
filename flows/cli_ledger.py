"""`tidemill ledger`: what has arrived, what became of it, and another try for what went wrong."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from lake.errors import TidemillError
from lake.settings import load_settings

if TYPE_CHECKING:
    from lake.ledger import Ledger
    from lake.ledger.arrivals import ObjectState
    from lake.ledger.drops import DropState

ledger_commands = typer.Typer(
    help="Show what has arrived and what became of it; try a drop again.", invoke_without_command=True
)
out = Console()

DROP_STATES = ("closed", "preparing", "waiting", "training", "trained", "refused", "poison")
OBJECT_STATES = ("seen", "assigned", "deleted", "unread", "erased")

Model = Annotated[str | None, typer.Option("--model", "-m", help="only this model")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="rows to show, the newest ones")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@ledger_commands.callback()
def ledger(
    context: typer.Context,
    model: Model = None,
    state: Annotated[str | None, typer.Option(help=f"only drops in this state: {', '.join(DROP_STATES)}")] = None,
    limit: Limit = 30,
    as_json: AsJson = False,
) -> None:
    """List the drops, the newest last, and count the objects by state.

    **closed** waits for its turn or its next attempt; **waiting** is prepared and checked, for the next training;
    **refused** did not meet its expectations; **poison** has failed too often and is left alone until
    **tidemill ledger replay**.
    """
    if context.invoked_subcommand is not None:
        return
    _one_of("--state", state, DROP_STATES)
    book = _open()
    found = book.drops.states(model, only=[state] if state else ())[-limit:]
    sizes = book.drops.sizes([drop.drop_id for drop in found])
    if as_json:
        out.print_json(json.dumps([{**drop.model_dump(mode="json"), "objects": sizes[drop.drop_id]} for drop in found]))
        return
    table = Table(_whole("drop", 16), "model", _whole("state", 9), "closed", "objects", "tries", "message")
    for drop in found:
        table.add_row(*_drop_row(drop, sizes[drop.drop_id]))
    out.print(table)
    counts: Counter[str] = Counter()
    for (name, object_state), n in book.arrivals.counts().items():
        if model in (None, name):
            counts[object_state] += n
    out.print("objects: " + (", ".join(f"{n:,} {name}" for name, n in sorted(counts.items())) or "none yet"))


@ledger_commands.command("objects")
def list_objects(
    model: Model = None,
    state: Annotated[str | None, typer.Option(help=f"only objects in this state: {', '.join(OBJECT_STATES)}")] = None,
    drop: Annotated[str | None, typer.Option(help="only objects of this drop")] = None,
    key: Annotated[str | None, typer.Option(help="only keys that hold this text")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List object versions, the newest first. Each version of a key has a row of its own.

    **unread**: its drop could not read it; **gone**: deleted or overwritten since. Example:
    **tidemill ledger objects --state unread --model docs-assistant**
    """
    _one_of("--state", state, OBJECT_STATES)
    found = _open().arrivals.objects(model, state, drop, key_contains=key, limit=limit)
    if as_json:
        out.print_json(json.dumps([each.model_dump(mode="json") for each in found]))
        return
    key_column = Column("key", overflow="fold", min_width=24)
    table = Table(key_column, "etag", "bytes", _whole("state", 8), "seen", "gone", _whole("drop", 16), "message")
    for each in found:
        table.add_row(*_object_row(each))
    out.print(table)


@ledger_commands.command()
def replay(
    drops: Annotated[list[str], typer.Argument(help="ids of drops, as 'tidemill ledger' shows them")],
) -> None:
    """Queue a poison or refused drop again, its attempts forgotten; of a prepared one, what could not be read.

    What a drop has read already is not read twice. Example: **tidemill ledger replay d0123456789abcde**
    """
    book = _open()
    for drop_id in drops:
        state = next((found.state for found in book.drops.states() if found.drop_id == drop_id), None)
        n_unread = (
            book.arrivals.requeue_unread(drop_id, datetime.now(UTC))
            if state in ("waiting", "trained", "refused")
            else 0
        )
        if n_unread:
            out.print(f"{drop_id}: {n_unread} unread objects go into the next drop")
        else:
            book.drops.replay(drop_id, datetime.now(UTC))
            out.print(f"{drop_id}: queued; follow it with [bold]tidemill runs[/]")


def _open() -> Ledger:
    from lake.ledger import Ledger

    opened = Ledger(load_settings())
    opened.migrate()
    return opened


def _one_of(option: str, given: str | None, allowed: tuple[str, ...]) -> None:
    if given is not None and given not in allowed:
        raise TidemillError(
            f"option {option}", expected=f"one of {', '.join(allowed)}", got=repr(given), remedy="choose one of them"
        )


def _whole(name: str, width: int) -> Column:
    """A column that is wanted whole, to be copied, however narrow the terminal is."""
    return Column(name, no_wrap=True, min_width=width)


def _drop_row(drop: DropState, n_objects: int) -> list[Any]:
    again = drop.state == "closed" and drop.not_before is not None
    colour = {"poison": "red", "refused": "red", "trained": "green"}.get(drop.state)
    return [
        drop.drop_id,
        drop.model,
        f"[{colour}]{drop.state}[/]" if colour else drop.state,
        f"{drop.closed_at:%m-%d %H:%M:%S}",
        f"{n_objects:,}",
        str(drop.attempts),
        f"next try at {drop.not_before:%H:%M:%S}: {drop.message}" if again else drop.message or "",
    ]


def _object_row(found: ObjectState) -> list[Any]:
    return [
        found.key,
        found.etag[:8],
        f"{found.size_bytes:,}",
        found.state,
        f"{found.first_seen_at:%m-%d %H:%M:%S}",
        f"{found.gone_at:%m-%d %H:%M:%S}" if found.gone_at else "-",
        found.drop_id or "-",
        found.message or "",
    ]
