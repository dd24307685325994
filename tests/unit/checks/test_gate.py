from __future__ import annotations

import math
import re

import pytest

from checks.gate import judge, perplexity_chart, render_report
from lake.recipe import Gate
from lake.records import EvalReport, PerplexityScore, TaskScore

GATE = Gate(min_gain_over_base=0.1, max_perplexity_ratio=1.0, max_regression=1.1, max_task_drop=0.15)
TASK = TaskScore(base=0.8, champion=0.8, challenger=0.8)
FIRST_TASK = TaskScore(base=0.8, champion=None, challenger=0.8)


def score(held_out: str, base: float, champion: float | None, challenger: float) -> PerplexityScore:
    return PerplexityScore(held_out=held_out, n_tokens=4096, base=base, champion=champion, challenger=challenger)


NEW = score("new", 30.0, 25.0, 24.0)
CHAMPIONS = score("champion", 30.0, 20.0, 21.0)


def failed(reasons: tuple[str, ...]) -> list[str]:
    return [reason for reason in reasons if reason.startswith("failed: ")]


def test_a_first_version_has_to_beat_the_base_model() -> None:
    passed, reasons = judge([score("new", 30.0, None, 26.9)], FIRST_TASK, GATE, None)
    assert passed
    assert len(reasons) == 2
    assert reasons[0].startswith("passed: perplexity on new held-out data (4096 tokens) is 26.90 against the base")
    passed, reasons = judge([score("new", 30.0, None, 27.1)], FIRST_TASK, GATE, None)
    assert not passed
    assert failed(reasons) == [
        "failed: perplexity on new held-out data (4096 tokens) is 27.10 against the base model's 30.00, "
        "a gain of 9.7%; at least 10.0% is required"
    ]


def test_a_gain_at_the_bound_passes() -> None:
    assert judge([score("new", 30.0, None, 27.0)], FIRST_TASK, GATE, None)[0]


def test_a_good_challenger_passes_every_rule() -> None:
    passed, reasons = judge([NEW, CHAMPIONS], TASK, GATE, "v3")
    assert passed
    assert len(reasons) == 4
    assert all(reason.startswith("passed: ") for reason in reasons)


def test_a_champion_whose_data_is_all_erased_is_compared_on_new_data_alone() -> None:
    passed, reasons = judge([NEW], TASK, GATE, "v3", all_erased=True)
    assert passed
    assert reasons[2] == "passed: nothing is left of the held-out data of champion v3 to compare on"
    assert not judge([NEW], TASK, GATE, "v3")[0], "a score that is merely missing never passes"


def test_a_challenger_behind_the_champion_on_new_data_fails() -> None:
    passed, reasons = judge([score("new", 30.0, 24.0, 24.5), CHAMPIONS], TASK, GATE, "v3")
    assert not passed
    assert failed(reasons) == [
        "failed: perplexity on new held-out data (4096 tokens) is 24.50 against champion v3's 24.00, "
        "a ratio of 1.021; at most 1.000 is allowed"
    ]


def test_a_challenger_that_forgot_the_champions_data_fails() -> None:
    passed, reasons = judge([NEW, score("champion", 30.0, 20.0, 22.5)], TASK, GATE, "v3")
    assert not passed
    assert failed(reasons) == [
        "failed: perplexity on the held-out data of champion v3 (4096 tokens) is 22.50 against champion v3's 20.00, "
        "a ratio of 1.125; at most 1.100 is allowed"
    ]


def test_a_challenger_worse_at_the_tasks_fails() -> None:
    task = TaskScore(base=0.9, champion=0.8, challenger=0.6)
    passed, reasons = judge([NEW, CHAMPIONS], task, GATE, "v3")
    assert not passed
    assert failed(reasons) == [
        "failed: accuracy on the fixed tasks is 60.0% against 80.0% of champion v3, 20.0 points lower; "
        "a drop of at most 15.0 points is allowed"
    ]


def test_a_drop_at_the_bound_passes_in_spite_of_rounding() -> None:
    assert 0.8 - 0.65 > 0.15
    assert judge([NEW, CHAMPIONS], TaskScore(base=0.8, champion=0.8, challenger=0.65), GATE, "v3")[0]


def test_a_first_version_is_compared_with_the_base_model_at_the_tasks() -> None:
    task = TaskScore(base=0.8, champion=None, challenger=0.5)
    passed, reasons = judge([score("new", 30.0, None, 20.0)], task, GATE, None)
    assert not passed
    assert "80.0% of the base model" in failed(reasons)[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, 0.5])
@pytest.mark.parametrize(
    ("held_out", "which"),
    [("new", "base"), ("new", "champion"), ("new", "challenger"), ("champion", "champion"), ("champion", "challenger")],
)
def test_a_score_that_is_no_perplexity_never_passes(bad: float, held_out: str, which: str) -> None:
    scores = [s.model_copy(update={which: bad}) if s.held_out == held_out else s for s in (NEW, CHAMPIONS)]
    passed, reasons = judge(scores, TASK, GATE, "v3")
    assert not passed
    assert len(failed(reasons)) >= 1


def test_an_accuracy_that_is_no_number_never_passes() -> None:
    task = TaskScore(base=0.8, champion=0.8, challenger=math.nan)
    assert not judge([NEW, CHAMPIONS], task, GATE, "v3")[0]
    assert not judge([NEW, CHAMPIONS], TaskScore(base=0.8, champion=math.nan, challenger=0.8), GATE, "v3")[0]


@pytest.mark.parametrize(
    ("scores", "task", "told"),
    [
        ([], TASK, "the perplexity on new held-out data was not measured, so a gain"),
        ([CHAMPIONS], TASK, "the perplexity on new held-out data was not measured for champion v3"),
        ([NEW], TASK, "the perplexity on the held-out data of champion v3 was not measured for champion v3"),
        ([NEW.model_copy(update={"champion": None}), CHAMPIONS], TASK, "on new held-out data was not measured for"),
        ([NEW, CHAMPIONS], FIRST_TASK, "the fixed tasks were not run for champion v3, so a drop cannot be ruled out"),
    ],
)
def test_a_missing_score_never_passes(scores: list[PerplexityScore], task: TaskScore, told: str) -> None:
    passed, reasons = judge(scores, task, GATE, "v3")
    assert not passed
    assert any(told in reason for reason in failed(reasons))


def report(champion: str | None, scores: tuple[PerplexityScore, ...], task: TaskScore) -> EvalReport:
    passed, reasons = judge(scores, task, GATE, champion)
    return EvalReport(
        eval_id="e1",
        model="docs & <more>",
        version="v4",
        champion_version=champion,
        passed=passed,
        reasons=reasons,
        perplexity=scores,
        task=task,
        report_key="reports/docs/evaluation/e1/report.html",
    )


def test_the_report_shows_every_score_and_loads_nothing() -> None:
    page, chart = render_report(report("v3", (NEW, CHAMPIONS), TASK))
    assert chart.startswith(b"\x89PNG")
    assert "docs &amp; &lt;more&gt; v4: evaluation" in page
    for shown in ("30.00", "25.00", "24.00", "20.00", "21.00", "80.0%", "against champion v3"):
        assert shown in page
    assert page.count('<li class="passed">') == 4
    assert not re.search(r"https?://", page)


def test_a_report_without_champion_shows_a_dash() -> None:
    page, _ = render_report(report(None, (score("new", 30.0, None, 29.0),), FIRST_TASK))
    assert '<p class="failed"><strong>failed</strong> the gate, against the base model.</p>' in page
    assert "<td>-</td>" in page


def test_a_chart_of_lost_scores_is_drawn() -> None:
    assert perplexity_chart([score("new", math.inf, None, math.nan)]).startswith(b"\x89PNG")
