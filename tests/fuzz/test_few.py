"""Some of the inputs of `python -m tests.fuzz`: none crashes, hangs, takes much memory or vanishes."""

from __future__ import annotations

from tests.fuzz.runner import outcomes

N_INPUTS, FIRST_SEED = 600, 100_000


def test_every_input_is_a_document_or_a_dead_letter() -> None:
    found = list(outcomes(range(FIRST_SEED, FIRST_SEED + N_INPUTS)))
    assert [(outcome.seed, outcome.family, outcome.wrong) for outcome in found if outcome.wrong] == []
    assert len(found) == N_INPUTS
    assert sum(outcome.n_documents for outcome in found) > N_INPUTS / 4, "damage leaves something to read"
    assert len({reason for outcome in found for reason in outcome.reasons}) > 15
