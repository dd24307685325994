"""What is a refusal, and what only begins like one."""

from __future__ import annotations

import pytest

from checks.answer_refusals import BEGINNING_CHARACTERS, refuses


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot assist with that request.",
        "I am really sorry, I am unable to do so.",
        "Sorry, I can't do that.",
        "I apologize, but I cannot provide that information.",
        "I cannot help you with this.",
        "I can't really answer that.",
        "I won't\nwrite that.",
        "I'm not able to help with that.",
        "I must decline.",
        "As an AI language model, I don't have personal opinions.",
        "Unfortunately, I cannot fulfill this request.",
        "That is not appropriate for me.",
        "Your request violates our rules.",
        "Es tut mir leid, aber das kann ich nicht beantworten.",
        "Dabei kann ich dir leider nicht helfen.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, pero no puedo ayudar con eso.",
        "很抱歉，我无法回答这个问题。",
        "申し訳ありませんが、お答えできません。",
    ],
)
def test_refusals_are_found(answer: str) -> None:
    assert refuses(answer)
    assert refuses(answer.upper())


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "   ",
        "Call sorted().",
        "I'm sorry to hear that. Have you tried turning it off and on again?",
        "Sorry, my mistake: the answer is 4.",
        "You can't sort a dictionary in place; use sorted().",
        "A list cannot be a key of a dictionary.",
        "As an assistant professor, she teaches physics.",
        "I can help with that.",
        "Es tut mir leid, das zu hören.",
        "Je suis désolé de l'apprendre.",
        "\x00\x01 \ufffd",
        "{'can': 'not'}",
    ],
)
def test_answers_are_not(answer: str) -> None:
    assert not refuses(answer)


def test_a_refusal_is_at_the_beginning() -> None:
    quoted = (
        "Write a reply such as this one: " + "x" * BEGINNING_CHARACTERS + " I'm sorry, but I cannot help with that."
    )
    assert not refuses(quoted)


def test_a_long_answer_takes_no_longer() -> None:
    assert not refuses("i'm sorry " * 2_000)
