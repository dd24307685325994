"""What a campaign found: a table for people, JSON for programs, Markdown for people who read docs/reliability.md.

`python -m tests.chaos.report` enters the last campaign there.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import OUT
from tests.chaos.points import Outcome
from tests.servers import ROOT

RULES = ("lost", "twice", "half-read", "lineage", "stuck")
PAGE, BEGIN, END = ROOT / "docs" / "reliability.md", "<!-- begin: campaign -->", "<!-- end: campaign -->"
COLUMNS = ("target", "fault", "points", *RULES, "recovery, median", "recovery, longest")


def rows(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """One row for each target and fault; the last one sums up. Points that met no fault do not count."""
    by_kind: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault((outcome.point.target, outcome.point.fault), []).append(outcome)
    told = [_row(target, fault, some) for (target, fault), some in by_kind.items()]
    everything = [outcome for some in by_kind.values() for outcome in some]
    return [*told, _row("all", "", everything)]


def summary(outcomes: Sequence[Outcome], seed: int, took_s: float) -> dict[str, Any]:
    """Everything about a campaign, as benchmarks/out/chaos.json holds it."""
    return {
        "seed": seed,
        "took_s": round(took_s, 1),
        "machine": f"{os.cpu_count()} cores",
        "kinds": rows(outcomes),
        "skipped": {str(each.point): each.skipped for each in outcomes if each.skipped},
        "points": [
            {
                "point": each.point.number,
                "target": each.point.target,
                "fault": each.point.fault,
                "where": each.where,
                "fired": each.fired,
                "recovery_s": each.recovery_s and round(each.recovery_s, 2),
                "took_s": round(each.took_s, 2),
                "violations": [{"rule": found.rule, "evidence": found.evidence} for found in each.violations],
            }
            for each in outcomes
            if not each.skipped
        ],
    }


def write(outcomes: Sequence[Outcome], seed: int, took_s: float, folder: Path = OUT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "chaos.json"
    path.write_text(json.dumps(summary(outcomes, seed, took_s), indent=1) + "\n")
    return path


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    table = Table(title="kill points", title_justify="left", title_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("target", "fault") else "right")
    for row in rows(outcomes):
        table.add_row(*_cells(row))
    console.print(table)


def in_words(outcome: Outcome) -> str:
    """One line about a point."""
    if outcome.skipped:
        return f"{outcome.point}: skipped, {outcome.skipped}"
    found = "; ".join(f"{each.rule}: {each.evidence}" for each in outcome.violations)
    met = outcome.where if outcome.fired else f"met no fault ({outcome.where})"
    recovery = f"{outcome.recovery_s:.1f} s" if outcome.recovery_s is not None else "–"
    return f"{outcome.point}: {found or 'ok'}; settled after {recovery}, took {outcome.took_s:.1f} s; {met}"


def markdown(told: dict[str, Any]) -> str:
    """The table of docs/reliability.md, from what chaos.json holds."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in told["kinds"]]
    return "\n".join(lines) + "\n"


def enter(told: dict[str, Any], page: Path = PAGE) -> None:
    """Put a campaign's figures between the page's two marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    n_points = told["kinds"][-1]["points"]
    lines = f"Seed {told['seed']}, {n_points} kill points in {told['took_s'] / 60:.0f} minutes on {told['machine']}:"
    skipped = "".join(f"\nSkipped: {point}: {why}.\n" for point, why in told["skipped"].items())
    page.write_text(f"{before}{BEGIN}\n{lines}\n\n{markdown(told)}{skipped}{END}{after}")


def _row(target: str, fault: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    fired = [outcome for outcome in outcomes if outcome.fired]
    recoveries = [outcome.recovery_s for outcome in fired if outcome.recovery_s is not None]
    rules = [found.rule for outcome in outcomes for found in outcome.violations]
    return {
        "target": target,
        "fault": fault,
        "points": sum(outcome.n_strikes for outcome in fired),
        **{rule: rules.count(rule) for rule in RULES},
        "recovery_median_s": round(statistics.median(recoveries), 1) if recoveries else None,
        "recovery_max_s": round(max(recoveries), 1) if recoveries else None,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    times = [f"{row[name]:.1f} s" if row[name] is not None else "–" for name in ("recovery_median_s", "recovery_max_s")]
    return [row["target"], row["fault"], str(row["points"]), *(str(row[rule]) for rule in RULES), *times]


if __name__ == "__main__":
    enter(json.loads((OUT / "chaos.json").read_text()))
