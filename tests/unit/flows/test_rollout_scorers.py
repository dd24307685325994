"""Language, listed words and perplexity of answers; and which checks a recipe leaves without data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from checks.answers import Pair, worse_by
from flows.rollout_scorers import (
    PERPLEXITY_PAIRS,
    BasePerplexity,
    few,
    in_prompts_language,
    measures,
    tellable,
    untellable,
)
from lake.errors import TidemillError
from lake.recipe import Recipe, Rollout, RolloutCheck, parse_recipe

ENGLISH = "How do I sort a list of numbers in Python without changing it?"
ANSWER = "You can call the function sorted on the list, and it will return a new one that has been put in order."
GERMAN = "Sie können die Funktion sorted aufrufen, die eine neue Liste zurückgibt und die alte unverändert lässt."


def recipe(text: str = "") -> Recipe:
    return parse_recipe(f"name: docs\n{text}", "test")


def pair(champion: str, challenger: str, prompt: str = ENGLISH) -> Pair:
    return Pair("r", prompt, champion, challenger)


@pytest.mark.parametrize(
    ("prompt", "champion", "challenger", "expected"),
    [
        (ENGLISH, ANSWER, ANSWER, (1, 1)),
        (ENGLISH, ANSWER, GERMAN, (1, 0)),
        (ENGLISH, GERMAN, ANSWER, (0, 1)),
        ("Wie sortiere ich eine Liste von Zahlen, ohne sie zu verändern?", GERMAN, ANSWER, (1, 0)),
        (ENGLISH, ANSWER, "", (1, 1)),  # too short to tell, as are the next
        (ENGLISH, ANSWER, "ja", (1, 1)),
        (ENGLISH, ANSWER, "1234 5678 " * 20, (1, 1)),
        ("hm?", ANSWER, GERMAN, (1, 1)),
        ("", ANSWER, GERMAN, (1, 1)),
        (ENGLISH, ANSWER, "\x00\ufffd" * 1_000, (1, 1)),
    ],
)
def test_answers_should_be_in_the_prompt_s_language(
    prompt: str, champion: str, challenger: str, expected: tuple[float, float]
) -> None:
    assert in_prompts_language(pair(champion, challenger, prompt)) == expected


def test_a_listed_word_is_found_whole_and_in_any_case(tmp_path: Path) -> None:
    listed = recipe("prepare: {quality: {toxicity: {words: [darn, 'hell no'], max_count: 5}}}")
    measure = measures(listed, tmp_path)["toxicity"]
    told = measure([pair("fine", "Darn it"), pair("HELL no!", "darnation"), pair("", "hell")])
    assert told == [(0, 1), (1, 0), (0, 0)]
    assert [worse_by(values, "lower") for values in told] == [1, -1, 0]


def test_without_a_list_nothing_is_toxic_and_nothing_is_fine(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match=r"prepare\.quality\.toxicity"):
        measures(recipe(), tmp_path)["toxicity"]([pair("a", "b")])


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    missing = recipe(f"prepare: {{quality: {{toxicity: {{file: 'file:{tmp_path}/none.txt'}}}}}}")
    with pytest.raises(TidemillError, match=r"none\.txt"):
        measures(missing, tmp_path)["toxicity"]([pair("a", "b")])


def test_the_default_plan_loses_what_nothing_would_tell() -> None:
    assert untellable(recipe()).keys() == {"toxicity"}
    kept = {check.metric for check in tellable(Rollout(), recipe()).checks}
    assert kept == {check.metric for check in Rollout().checks} - {"toxicity"}
    assert tellable(Rollout(), recipe("prepare: {quality: {toxicity: {words: [darn]}}}")) == Rollout()


def test_without_a_log_only_the_gateway_tells() -> None:
    silent = recipe("monitoring: {log_share: 0}\nrollout: {checks: [{metric: error_rate}, {metric: feedback}]}")
    assert [check.metric for check in tellable(silent.rollout, silent).checks] == ["error_rate"]
    assert "monitoring.log_share" in untellable(silent)["feedback"]


class Scored:
    """Stands in for the base model: the perplexity of a text is e to its length in characters, by hundreds."""

    def __init__(self) -> None:
        self.n_loaded, self.n_texts = 0, 0

    def load(self) -> Scored:
        self.n_loaded += 1
        return self

    def __call__(self, texts: Sequence[str]) -> list[float]:
        self.n_texts += len(texts)
        return [math.exp(len(text) / 100) if text else math.nan for text in texts]


def test_perplexity_is_told_in_nats_of_a_few_pairs_drawn_by_their_request() -> None:
    scored = Scored()
    measure = BasePerplexity(scored.load)
    assert measure([]) == [] and scored.n_loaded == 0
    pairs = [Pair(f"r{number}", "", "x" * 100, "x" * (100 + number)) for number in range(20)]
    told = measure(pairs)
    assert measure(pairs) == told
    assert (scored.n_loaded, scored.n_texts) == (1, 4 * PERPLEXITY_PAIRS)
    found = {number: values for number, values in enumerate(told) if values is not None}
    assert len(found) == PERPLEXITY_PAIRS
    for number, values in found.items():
        assert values == pytest.approx((1.0, 1.0 + number / 100))
        assert worse_by(values, "lower") == pytest.approx(number / 100)


def test_the_perplexity_of_nothing_is_not_told() -> None:
    (values,) = BasePerplexity(Scored().load)([pair("some text", "")])
    assert worse_by(values, "lower") is None


def test_a_draw_depends_on_the_requests_alone() -> None:
    pairs = [Pair(f"r{number}", "", "", "") for number in range(50)]
    drawn = {pairs[place].request_id for place in few(pairs, 10)}
    turned = list(reversed(pairs))
    assert {turned[place].request_id for place in few(turned, 10)} == drawn
    assert few(pairs, 100) == list(range(50))
    assert few(pairs, 10) == sorted(few(pairs, 10))


def test_each_log_metric_of_answers_has_a_measure(tmp_path: Path) -> None:
    paired = {
        check.metric for check in (*Rollout().checks, RolloutCheck(metric="perplexity")) if check.of.kind == "paired"
    }
    assert measures(recipe(), tmp_path).keys() == paired
