"""Near-duplicates: how many are found, how many of those are none, how fast; beside datasketch's MinHash.

The set is labelled by brute force: the exact Jaccard similarity of all pairs. Both sides get the same texts in one
process and in turns; the best of their runs counts, as a busy machine only ever adds to processor time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks._dedup_sides import N_PERMUTATIONS, Found, datasketch, ours
from benchmarks._labelled import MIN_JACCARD, Labelled, labelled
from benchmarks.report import Figure, at_least, told
from lake.recipe import PrepareRules

N_RUNS = 3
# 32 bands of 4 rows find 99.9999 % of the pairs at 0.8 (1 - (1 - 0.8⁴)³²): nothing is lost but by the estimate.
FINEST_BANDS = 32, 4


class Score(NamedTuple):
    recall: float
    precision: float


def run() -> list[Figure]:
    print("labelling: the exact similarity of all pairs …", flush=True)
    found = labelled()
    return _figures(found)


def _figures(found: Labelled) -> list[Figure]:
    rules = PrepareRules()
    print(f"{len(found.texts)} documents, {len(found.pairs)} pairs; searching …", flush=True)
    ours(found.texts[:100], rules.max_hamming, MIN_JACCARD)  # imports are no part of it
    our_runs, peer_runs = [], []
    for _ in range(N_RUNS):
        our_runs.append(ours(found.texts, rules.max_hamming, MIN_JACCARD))
        peer_runs.append(datasketch(found.texts, MIN_JACCARD))
    mine, (peer, peer_index) = min(our_runs, key=_cpu_s), min(peer_runs, key=lambda each: _cpu_s(each[0]))
    finest, _ = datasketch(found.texts, MIN_JACCARD, FINEST_BANDS)
    score, theirs, tuned = (score_of(each.pairs, found.pairs) for each in (mine, peer, finest))
    alone = score_of(peer_index.pairs, found.pairs)
    to_drop, dropped = set(found.pairs[:, 1].tolist()), set(mine.pairs[:, 1].tolist())
    peer_dropped = set(peer.pairs[:, 1].tolist())
    n = len(found.texts)
    what = (
        f"{len(found.pairs)} pairs of Jaccard ≥ {MIN_JACCARD} among all pairs of {n} documents: {found.n_versions} of two"
        f" releases of the same documentation, {n - found.n_versions} copies with 1 to 20 % of their words edited"
    )
    name = f"datasketch MinHash-{N_PERMUTATIONS}"
    steps = ", ".join(f"{step} {cpu_s / n * 1e6:.0f} µs" for step, cpu_s in mine.cpu_s.items())
    peer_steps = ", ".join(f"{step} {cpu_s / n * 1e6:.0f} µs" for step, cpu_s in peer.cpu_s.items())
    best = Score(max(theirs.recall, tuned.recall), max(theirs.precision, tuned.precision))
    return [
        at_least("recall", score.recall, 0.99, "", what),
        at_least("precision", score.precision, 0.995, "", "of the pairs found"),
        at_least("recall over datasketch's", score.recall / best.recall, 1, "×", "the better of its two settings below"),
        at_least("precision over datasketch's", score.precision / best.precision, 1, "×", "likewise"),
        at_least("documents/s over datasketch's", _cpu_s(peer) / _cpu_s(mine), 3, "×", f"CPU, best of {N_RUNS} in turns"),
        told("documents", n / _cpu_s(mine), "1/s", f"of one process: {steps}"),
        told(f"{name}, documents", n / _cpu_s(peer), "1/s", f"of one process: {peer_steps}"),
        told(f"{name}, recall", theirs.recall, "", f"LSH for {MIN_JACCARD}, and its own estimate at least that"),
        told(f"{name}, precision", theirs.precision, "", "likewise"),
        told(f"{name}, finest bands, recall", tuned.recall, "", f"{FINEST_BANDS[0]} × {FINEST_BANDS[1]}, and its estimate"),
        told(f"{name}, finest bands, precision", tuned.precision, "", "likewise"),
        told(f"{name}, finest bands, documents", n / _cpu_s(finest), "1/s", "of one process"),
        told(f"{name}, index alone, recall", alone.recall, "", "what its index returns, with no verdict"),
        told(f"{name}, index alone, precision", alone.precision, "", "likewise"),
        told("duplicates dropped", len(dropped & to_drop) / len(to_drop), "", f"of {len(to_drop)} documents that have an earlier near-duplicate"),
        told("dropped without cause", len(dropped - to_drop) / n, "", "of all documents"),
        told(f"{name}, duplicates dropped", len(peer_dropped & to_drop) / len(to_drop), "", "likewise"),
        told(f"{name}, dropped without cause", len(peer_dropped - to_drop) / n, "", "likewise"),
    ]  # fmt: skip


def score_of(found: NDArray[np.int64], true: NDArray[np.int64]) -> Score:
    """Share of the true pairs that were found, and of the found pairs that are true; pairs `(earlier, later)`, `[n, 2]`."""
    found_pairs, true_pairs = set(map(tuple, found.tolist())), set(map(tuple, true.tolist()))
    n_right = len(found_pairs & true_pairs)
    return Score(n_right / len(true_pairs), n_right / max(1, len(found_pairs)))


def _cpu_s(found: Found) -> float:
    return sum(found.cpu_s.values())
