"""What a rollout may be judged by: every metric with its kind, its unit, and what counts as worse."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# rate: successes of both versions' requests. quantile: of a duration. paired: one difference in [-1, 1] for each
# request that both have answered. mean: values of each version on its own requests.
Kind = Literal["rate", "quantile", "paired", "mean"]
# points: challenger minus champion, of shares. score: the same, in the metric's own numbers. ratio: one over the other.
Unit = Literal["points", "score", "ratio"]
Direction = Literal["lower", "higher", "near"]
Stage = Literal["shadow", "ab", "canary"]

LIVE: tuple[Stage, ...] = ("ab", "canary")
EVERYWHERE: tuple[Stage, ...] = ("shadow", *LIVE)


@dataclass(frozen=True)
class Metric:
    """One metric. `better` is the direction of a good challenger; `margin` is how much worse it may be by default.

    `stages` are those in which it can be compared: latency not in the shadow, where nobody waits for the answers and
    so nothing slows the requests down to what the replica can answer. `needs_log`: told by the prediction log.
    """

    name: str
    kind: Kind
    unit: Unit
    better: Direction
    margin: float
    stages: tuple[Stage, ...]
    told: str
    needs_log: bool = False


_METRICS = (
    Metric("error_rate", "rate", "points", "lower", 0.0025, EVERYWHERE, "answers of 500 and above, time-outs, resets"),
    Metric("agreement", "paired", "score", "higher", 0.6, ("shadow",), "likeness of both answers, 1 is equal", True),
    Metric("answer_length", "paired", "score", "near", 0.5, ("shadow",), "(b - a) / (b + a) of the lengths", True),
    Metric("refusal_rate", "paired", "points", "lower", 0.1, ("shadow",), "answers that refuse", True),
    Metric("repetition", "paired", "points", "lower", 0.1, ("shadow",), "share of repeated text in an answer", True),
    Metric("language", "paired", "points", "higher", 0.1, ("shadow",), "answers in the prompt's language", True),
    Metric("toxicity", "paired", "points", "lower", 0.05, ("shadow",), "answers with a listed word", True),
    Metric("perplexity", "paired", "score", "lower", 0.3, ("shadow",), "nats a token under the base model", True),
    Metric("feedback", "mean", "score", "higher", 0.05, LIVE, "scores in [0, 1] that users or labels gave", True),
    Metric("cpu_s", "mean", "ratio", "lower", 1.5, LIVE, "CPU seconds a request"),
    Metric("energy_j", "mean", "ratio", "lower", 1.5, LIVE, "joules a request, where the machine tells them"),
)  # fmt: skip
_BY_NAME = {metric.name: metric for metric in _METRICS}
_QUANTILE = re.compile(r"^(latency|first_token)_p([1-9]\d?)$")
_BUSINESS = re.compile(r"^business:[a-z0-9][a-z0-9_-]{0,40}$")
_DURATIONS = {"latency": "until the answer is complete", "first_token": "until the first token"}


def metric(name: str) -> Metric:
    """The metric of that name. Raises ValueError listing what there is.

    `latency_p95` and `first_token_p50` stand for all quantiles from p1 to p99, `business:<name>` for whatever a webhook
    tells.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    if found := _QUANTILE.match(name):
        return Metric(name, "quantile", "ratio", "lower", 1.5, LIVE, f"milliseconds {_DURATIONS[found[1]]}")
    if _BUSINESS.match(name):
        return Metric(name, "mean", "ratio", "higher", 1.05, LIVE, "what the check's url tells")
    raise ValueError(f"a metric: {', '.join(_BY_NAME)}, latency_p95, first_token_p95 (p1 to p99) or business:<name>")


def quantile_of(name: str) -> tuple[str, float]:
    """The duration (`latency`, `first_token`) and the quantile in (0, 1) that a quantile metric names."""
    found = _QUANTILE.match(name)
    if found is None:
        raise ValueError(f"{name!r}, expected the name of a quantile metric such as latency_p95")
    return found[1], int(found[2]) / 100
