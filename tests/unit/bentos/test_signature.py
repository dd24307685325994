from __future__ import annotations

import pytest

from bentos.signature import mismatch, signature_labels

CHAMPION = signature_labels("generate", 2048)


@pytest.mark.parametrize(
    "challenger", [CHAMPION, signature_labels("generate", 8192), {}, {"model": "docs", "bento_id": "b"}]
)
def test_who_answers_all_that_the_champion_does_may_challenge_it(challenger: dict[str, str]) -> None:
    assert mismatch(CHAMPION, challenger) is None
    assert mismatch({}, challenger) is None


@pytest.mark.parametrize(
    ("challenger", "told"),
    [
        (signature_labels("classify", 2048), "task classify, the champion's is generate"),
        (signature_labels("generate", 1024), "a context of 1024 tokens, the champion's is 2048"),
        ({**CHAMPION, "api": "openai-2"}, "api openai-2, the champion's is openai-1"),
    ],
)
def test_who_would_refuse_some_of_its_clients_may_not(challenger: dict[str, str], told: str) -> None:
    assert mismatch(CHAMPION, challenger) == told
