"""`python -m tests.fuzz --inputs 10000 [--seed 0]`: reads that many inputs and prints what came of them."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console
from rich.table import Table

from tests.fuzz.runner import outcomes
from tests.fuzz.worker import Outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first input; each input has the next one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at work beside each other")
    asked = parser.parse_args()
    seeds = range(asked.seed, asked.seed + asked.inputs)
    console = Console(width=180)
    found: dict[str, list[Outcome]] = defaultdict(list)

    def run(worker: int) -> list[Outcome]:
        told = []
        for outcome in outcomes(seeds[worker :: asked.workers]):
            told.append(outcome)
            if outcome.wrong:
                console.print(f"seed {outcome.seed} ({outcome.family}): {outcome.wrong}", markup=False)
        return told

    with ThreadPoolExecutor(asked.workers) as pool:
        for told in pool.map(run, range(asked.workers)):
            for outcome in told:
                found[outcome.family].append(outcome)
    console.print(_table(found))
    every = [outcome for family in found.values() for outcome in family]
    n_wrong = sum(outcome.wrong is not None for outcome in every)
    console.print(f"{len(every)} inputs, {n_wrong} of them wrong")
    return 1 if n_wrong else 0


def _table(found: dict[str, list[Outcome]]) -> Table:
    table = Table(title="fuzz", title_justify="left")
    for name in (
        "family",
        "inputs",
        "documents",
        "letters",
        "reasons",
        "slowest (seed)",
        "most memory (seed)",
        "wrong",
    ):
        table.add_column(name, justify="left" if name in ("family", "reasons") else "right", overflow="fold")
    for family, group in sorted(found.items()):
        reasons = sum((Counter(outcome.reasons) for outcome in group), Counter[str]())
        slowest, largest = max(group, key=lambda o: o.cpu_s), max(group, key=lambda o: o.added_bytes)
        table.add_row(
            family,
            str(len(group)),
            str(sum(outcome.n_documents for outcome in group)),
            str(reasons.total()),
            ", ".join(f"{reason} {n}" for reason, n in reasons.most_common()),
            f"{slowest.cpu_s:.2f} s ({slowest.seed})",
            f"{largest.added_bytes / 1e6:.0f} MB ({largest.seed})",
            str(sum(outcome.wrong is not None for outcome in group)),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
