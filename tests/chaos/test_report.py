"""Figures as they are published: what counts as a point, and where the page takes them."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.invariants import Violation
from tests.chaos.points import PLAN, Outcome, Point, campaign, subset, thinned
from tests.chaos.report import BEGIN, END, PAGE, enter, rows, summary


def outcome(number: int, fault: str, *, fired: bool = True, recovery_s: float = 1.0) -> Outcome:
    return Outcome(Point(1, number, "watcher", fault), fired=fired, recovery_s=recovery_s)


def test_points_that_met_no_fault_do_not_count_but_their_violations_do() -> None:
    missed = outcome(2, "kill", fired=False, recovery_s=9.0)
    missed.violations = [Violation("lost", "an object")]
    told = rows([outcome(0, "kill", recovery_s=2.0), outcome(1, "kill", recovery_s=4.0), missed])
    assert (told[0]["points"], told[0]["lost"], told[0]["recovery_median_s"], told[0]["recovery_max_s"]) == (2, 1, 3, 4)
    assert (told[-1]["target"], told[-1]["points"]) == ("all", 2)


def test_a_campaign_is_entered_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    enter(summary([outcome(0, "kill")], seed=7, took_s=60.0), page)
    text = page.read_text()
    assert text.startswith(PAGE.read_text().partition(BEGIN)[0])
    assert text.endswith(PAGE.read_text().partition(END)[2])
    assert "Seed 7, 1 kill points in 1 minutes" in text
    assert "| watcher | kill | 1 | 0 | 0 | 0 | 0 | 0 | 1.0 s | 1.0 s |" in text


def test_the_same_seed_gives_the_same_points_and_the_subset_is_a_part_of_them() -> None:
    points = campaign(7)
    assert points == campaign(7)
    assert len(points) == sum(n_points for *_, n_points in PLAN)
    assert set(subset(7)) <= set(points)
    assert [point.draw().random() for point in points[:3]] == [point.draw().random() for point in campaign(7)[:3]]
    assert len(thinned(points, 20)) == 20
