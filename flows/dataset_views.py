"""How datasets look in a terminal. Texts come from outside: they are shown without markup and control characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.dataset_diff import Difference, Document, Missing
from flows.dataset_find import Stored
from flows.dataset_profile import Profile
from flows.dataset_sample import Seen
from lake.records import SPLITS

_NOT_MEASURES = {"id", "place_id", "text", "source_uri", "source_etag", "position", "reason", "detail", "given_id"}
_NOT_MEASURES |= {"duplicate_of", "duplicate_of_place", "similarity"}


def printable(text: object) -> Text:
    """Plain text: an escape sequence in a document must not reach the terminal."""
    shown = "" if text is None else str(text)
    return Text("".join(letter if letter in "\n\t" or letter.isprintable() else "\ufffd" for letter in shown))


def size(n_bytes: int) -> str:
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= divisor:
            return f"{n_bytes / divisor:.1f} {unit}"
    return f"{n_bytes} bytes"


def list_view(rows: list[tuple[Stored, str]]) -> Table:
    """`rows` are datasets, oldest first, each with the state of its drop."""
    table = Table(
        "dataset", "model", "drop", "state", "objects", "read", "kept", "train / validation / test", "rejected"
    )
    for stored, state in rows:
        dataset = stored.dataset
        splits = " / ".join(f"{dataset.n_documents.get(split, 0):,}" for split in SPLITS)
        rejected = sum(dataset.rejected.values())
        counts = (f"{dataset.n_objects:,}", f"{dataset.n_read:,}", f"{dataset.n_kept:,}", splits, f"{rejected:,}")
        table.add_row(stored.name, dataset.model, dataset.drop_id, state, *counts)
    return table


def show_view(stored: Stored, found: Profile, n_sources: int) -> Group:
    dataset = stored.dataset
    facts = Table.grid(padding=(0, 2))
    told: list[tuple[str, object]] = [
        ("dataset", dataset.dataset_id),
        ("model", dataset.model),
        ("drop", dataset.drop_id),
        ("where", stored.store.uri(stored.prefix)),
        ("read", f"{dataset.n_read:,} documents of {dataset.n_objects:,} objects"),
        ("kept", f"{dataset.n_kept:,} ({dataset.n_kept / max(dataset.n_read, 1):.1%})"),
        ("redacted", ", ".join(f"{kind} {n:,}" for kind, n in dataset.redacted.items()) or "nothing"),
        ("size", ", ".join(f"{name} {size(n)}" for name, n in found.size_bytes.items()) or "no files"),
        ("history", ", ".join(dataset.history_ids) or "none: the first drop"),
    ]
    if dataset.n_reserved:
        told.insert(6, ("in reserve", f"{dataset.n_reserved:,} that quotas left out, for a later drop"))
    if (report := stored.checked) is not None:
        unmet = "; ".join((*report.failures, *(f"warning: {warning}" for warning in report.warnings)))
        verdict = "passed" if report.passed else "refused"
        told.append(("checked", f"{verdict}{', ' if unmet else ''}{unmet}"))
    for name, value in told:
        facts.add_row(f"[dim]{name}[/]", printable(value))
    splits = Table("split", "documents", "characters", "tokens", title="Kept", title_justify="left")
    for split in SPLITS:
        tokens = f"{found.tokens[split]:,}" if split in found.tokens else "-"
        counts = (dataset.n_documents.get(split, 0), dataset.n_characters.get(split, 0))
        splits.add_row(split, *(f"{n:,}" for n in counts), tokens)
    tables = [
        splits,
        _counts("Rejected", "reason", dataset.rejected),
        _counts("Languages", "language", found.languages),
    ]
    if found.domains:
        tables.append(_counts("Domains", "domain", found.domains, "tokens" if dataset.domains else "documents"))
    if dataset.columns:
        tables.append(_counts("Columns of the input", "name:type", dataset.columns, "records", of_largest=True))
    sources = Table("source", "kept", "read", title="Sources", title_justify="left")
    for uri, (kept, read) in islice(found.sources.items(), n_sources):
        sources.add_row(printable(uri), f"{kept:,}", f"{read:,}")
    if len(found.sources) > n_sources:
        sources.add_row(f"[dim]and {len(found.sources) - n_sources:,} more[/]", "", "")
    return Group(facts, Text(), Columns(tables, padding=(0, 3)), sources)


def _counts(
    title: str, what: str, counts: Mapping[str, int], unit: str = "documents", of_largest: bool = False
) -> Table:
    """Counts with their shares of all together, or `of_largest`: where a record is counted more than once."""
    table = Table(what, unit, "share", title=title, title_justify="left")
    total = max(counts.values(), default=1) if of_largest else max(sum(counts.values()), 1)
    for name, n in sorted(counts.items(), key=lambda item: -item[1]):
        table.add_row(printable(name), f"{n:,}", f"{n / total:.1%}")
    return table


def diff_view(a: Stored, b: Stored, found: Difference, limit: int) -> Group:
    """A table of counts, then the first `limit` documents of each kind."""
    table = Table("", "documents", "", title=f"{a.name} → {b.name}", title_justify="left")
    table.add_row("same", f"{found.n_same:,}", "in both, with the same text")
    table.add_row("[yellow]changed[/]", f"{len(found.changed):,}", "in both, with another text")
    for name, colour, missing in (("dropped", "red", found.dropped), ("added", "green", found.added)):
        table.add_row(f"[{colour}]{name}[/]", f"{len(missing):,}", _whence(name))
        for reason, n in found.summary()[f"{name}_by_reason"].items():
            table.add_row("", f"{n:,}", f"  {reason}")
    table.add_row("[dim]in all[/]", f"{found.n_a:,} → {found.n_b:,}", "")
    parts: list[RenderableType] = [table]
    parts += _listed("Changed", (_where(old) + Text(f"  {old.id} → {new.id}") for old, new in found.changed), limit)
    parts += _listed("Dropped", map(_why, found.dropped), limit)
    parts += _listed("Added", map(_why, found.added), limit)
    return Group(*parts)


def _whence(name: str) -> str:
    first, second = ("first", "second") if name == "dropped" else ("second", "first")
    return f"only in the {first}; by what the {second} says of them:"


def _listed(title: str, lines: Iterator[Text], limit: int) -> list[RenderableType]:
    shown = list(islice(lines, limit))
    return [Text(f"\n{title}", style="bold"), *shown] if shown else []


def _where(document: Document) -> Text:
    return printable(f"{document.source_uri} {document.position}")


def _why(missing: Missing) -> Text:
    line = _where(missing.document) + Text(f"  {missing.reason}", style="bold")
    if missing.duplicate_of:
        alike = f", {missing.similarity:.0%} alike" if missing.similarity is not None else ""
        return line + printable(f" of {missing.duplicate_of}{alike}")
    return line + printable(f" ({missing.detail})" if missing.detail else "")


def sample_view(seen: Seen, n_characters: int, width: int) -> RenderableType:
    """One document in a frame: its text, or its reason and the document kept instead, above what was measured of it."""
    row = seen.row
    title = printable(row["id"])
    lines: list[RenderableType] = [Text.assemble(("from ", "dim"), printable(f"{row['source_uri']} {row['position']}"))]
    if row.get("reason"):
        lines.append(Text.assemble((row["reason"], "bold red"), printable(f"  {row.get('detail') or ''}")))
        lines.append(_original(seen, n_characters) if seen.text is None else _cut(seen.text, n_characters))
    else:
        lines.append(_cut(seen.text, n_characters))
    measured = {**seen.metrics, **row}
    measured = {name: value for name, value in measured.items() if name not in _NOT_MEASURES and value is not None}
    lines.append(Text("  ".join(f"{name}={_short(value)}" for name, value in measured.items()), style="dim"))
    return Panel(Group(*lines), title=title, title_align="left", width=width)


def _original(seen: Seen, n_characters: int) -> RenderableType:
    row = seen.row
    if not row.get("duplicate_of"):
        return Text("no text is kept of what is rejected", style="dim")
    alike = f"{row['similarity']:.0%} alike" if row.get("similarity") is not None else ""
    head = Text.assemble(("kept instead ", "dim"), printable(row["duplicate_of"]), (f"  {alike}", "dim"))
    if seen.kept is None:
        return Text.assemble(head, ("  its dataset is not at hand", "dim"))
    where = printable(f"{seen.kept['source_uri']} {seen.kept['position']}, dataset {seen.kept_in}")
    return Panel(
        Group(where, _cut(seen.kept["text"], n_characters)), title=head, title_align="left", border_style="green"
    )


def _cut(text: str | None, n_characters: int) -> Text:
    text = text or ""
    rest = len(text) - n_characters
    return printable(text[:n_characters]) + Text(f" … {rest:,} more characters" if rest > 0 else "", style="dim")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else printable(value).plain
