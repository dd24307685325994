"""What clients may ask of a bento: a challenger has to answer everything that the champion does."""

from __future__ import annotations

from collections.abc import Mapping

# Of the paths and bodies in `openai_types`; it grows when a client of before would be refused.
API = "openai-1"
TASK, INTERFACE, CONTEXT = "task", "api", "context_length"


def signature_labels(task: str, context_length: int) -> dict[str, str]:
    """A bento's labels that tell its signature."""
    return {TASK: task, INTERFACE: API, CONTEXT: str(context_length)}


def mismatch(champion: Mapping[str, str], challenger: Mapping[str, str]) -> str | None:
    """How a challenger's labels differ from what the champion's clients rely on, in words; None when they do not.

    A longer context answers all that a shorter one does. Bentos that were built before there was a signature have none,
    and are taken to fit.
    """
    for label in (TASK, INTERFACE):
        if label in champion and label in challenger and champion[label] != challenger[label]:
            return f"{label} {challenger[label]}, the champion's is {champion[label]}"
    if CONTEXT in champion and CONTEXT in challenger and int(challenger[CONTEXT]) < int(champion[CONTEXT]):
        return f"a context of {challenger[CONTEXT]} tokens, the champion's is {champion[CONTEXT]}"
    return None
