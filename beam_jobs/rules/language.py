"""Which language a text is in, by py3langid (a naive Bayes model over byte n-grams; Lui and Baldwin 2012)."""

from __future__ import annotations

from functools import cache
from typing import Any

# Of 2,890 pieces of documentation, 3 are judged otherwise by their first 600 characters than by 2,000, in a third of the time.
LANGUAGE_SAMPLE_CHARACTERS = 600


def detect_language(text: str) -> tuple[str, float]:
    """ISO 639-1 code and its probability, from the beginning of the text."""
    code, probability = _identifier().classify(text[:LANGUAGE_SAMPLE_CHARACTERS])
    return str(code), float(probability)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
