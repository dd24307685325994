"""The outcome of the data gate for people: a page's head for the browser, Markdown for the Prefect UI."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["met", "warned", "failed"]

_SUITES = {
    "raw": "What was read",
    "clean": "What is kept",
    "drift": "Against earlier drops",
}
_MARK = {"met": "\u2713", "warned": "\u26a0", "failed": "\u2717"}
_ALT = "Lengths, outcomes, languages and domains of this drop and of earlier ones"


@dataclass(frozen=True)
class Judged:
    """One expectation of a suite: its name in the recipe, what it is about, what was expected, what was got."""

    suite: str
    name: str
    what: str
    expected: str
    got: str
    outcome: Outcome

    @property
    def told(self) -> str:
        return f"{self.what}: expected {self.expected}, got {self.got}"


def render_summary(title: str, judged: Sequence[Judged], skipped: Sequence[str], picture: bytes) -> str:
    """The HTML that the Data Docs begin with: the verdict, what was not met, a picture (PNG), every expectation."""
    suites = []
    for suite, rows in _by_suite(judged):
        told = "".join(_row(one) for one in rows)
        suites.append(
            f"<h2>{_SUITES[suite]}</h2><table class='expectations'><tr><th></th><th>what</th><th>expected</th>"
            f"<th>got</th><th>name in the recipe</th></tr>{told}</table>"
        )
    unmet = [one for outcome in ("failed", "warned") for one in judged if one.outcome == outcome]
    items = [f'<li class="{one.outcome}">{_MARK[one.outcome]} {html.escape(one.told)}</li>' for one in unmet]
    items += [f'<li class="skipped">not judged: {html.escape(line)}</li>' for line in skipped]
    image = base64.b64encode(picture).decode()
    return (
        f"<h1>{html.escape(title)}</h1>"
        f'<p class="verdict {_verdict(judged)}"><strong>{_verdict(judged)}</strong>: {_counted(judged)}</p>'
        f'<ul class="unmet">{"".join(items)}</ul>'
        f'<p><img class="drop" src="data:image/png;base64,{image}" alt="{_ALT}"></p>{"".join(suites)}'
    )


def render_markdown(title: str, judged: Sequence[Judged], skipped: Sequence[str]) -> str:
    """The same as Markdown, without the picture. What was met is counted, not listed."""
    lines = [f"## {title}: {_verdict(judged)}", "", _counted(judged), ""]
    unmet = [one for outcome in ("failed", "warned") for one in judged if one.outcome == outcome]
    # Not a table: the UI cuts wide ones off.
    lines += [
        f"- {_MARK[one.outcome]} **{_escaped(one.what)}**: {_escaped(f'expected {one.expected}, got {one.got}')}"
        for one in unmet
    ]
    lines += [f"- not judged: {_escaped(line)}" for line in skipped]
    lines += ["", "| suite | met | warned | failed |", "|---|---|---|---|"]
    for suite, rows in _by_suite(judged):
        n = Counter(one.outcome for one in rows)
        lines.append(f"| {_SUITES[suite].lower()} | {n['met']} | {n['warned']} | {n['failed']} |")
    return "\n".join(lines) + "\n"


def _by_suite(judged: Sequence[Judged]) -> list[tuple[str, list[Judged]]]:
    return [(suite, [one for one in judged if one.suite == suite]) for suite in dict.fromkeys(o.suite for o in judged)]


def _verdict(judged: Sequence[Judged]) -> str:
    return "failed" if any(one.outcome == "failed" for one in judged) else "passed"


def _counted(judged: Sequence[Judged]) -> str:
    n = Counter(one.outcome for one in judged)
    warned = f", {n['warned']} warning{'s' if n['warned'] > 1 else ''}" if n["warned"] else ""
    return f"{n['met']} of {len(judged)} expectations met{warned}."


def _row(one: Judged) -> str:
    cells = "".join(f"<td>{html.escape(value)}</td>" for value in (one.what, one.expected, one.got))
    return (
        f'<tr class="{one.outcome}"><td class="mark">{_MARK[one.outcome]}</td>{cells}'
        f"<td><code>{html.escape(one.name)}</code></td></tr>"
    )


def _escaped(value: str) -> str:
    """Text that may come from the data: no markup, no link."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#!|&" else letter for letter in " ".join(value.split()))
