"""The Evidently report of one drift window: the topic test on embeddings, and the request's cheap numbers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.core.metric_types import ByLabelCalculation, ByLabelMetric, ByLabelValue
from evidently.core.report import Context
from evidently.metrics import MeanValue, RowCount, ValueDrift
from evidently.tests import gt
from numpy.typing import NDArray

from checks.mmd import mmd_permutation_test
from lake.recipe import Monitoring
from lake.records import PredictionLog

METHOD = "mmd_permutation"
_SEED = 0
# Shown, not judged: lengths and latencies move for other reasons than the topic.
_NUMBERS = ("prompt_words", "prompt_tokens", "response_tokens", "latency_ms")
_EMBEDDING = "embedding_"


class PromptTopicDrift(ByLabelMetric):  # type: ignore[misc]  # the library is untyped here
    """Labels `statistic` (unbiased MMD²) and `p_value` of the permutation test on the prompts' embeddings."""

    permutations: int
    seed: int


class PromptTopicDriftCalculation(ByLabelCalculation[PromptTopicDrift]):  # type: ignore[misc]  # see above
    """Evidently's own embedding drift takes 15 s a report and its MMD defaults alarm always; this takes 0.3 s."""

    def calculate(  # the context is Evidently's to pass
        self,
        context: Context,  # noqa: ARG002
        current_data: Dataset,
        reference_data: Dataset | None,
    ) -> ByLabelValue:
        if reference_data is None:
            raise ValueError("reference_data=None, expected the reference window")
        statistic, p_value = mmd_permutation_test(
            _embedding(reference_data), _embedding(current_data), self.metric.permutations, self.metric.seed
        )
        return self.result({"statistic": statistic, "p_value": p_value})

    def display_name(self) -> str:
        return f"Topic of prompts: MMD of MiniLM embeddings, {self.metric.permutations} permutations"

    def label_display_name(self, label: Any) -> str:
        return f"{self.display_name()}: {label}"


@dataclass(frozen=True)
class Measured:
    statistic: float
    p_value: float
    report: str
    """A self-contained HTML page."""


def measure(
    reference: Sequence[PredictionLog],
    current: Sequence[PredictionLog],
    reference_vectors: NDArray[np.float32],
    current_vectors: NDArray[np.float32],
    rules: Monitoring,
) -> Measured:
    """Run the report on two windows and their prompts' embeddings `[n, 384]`."""
    topic = PromptTopicDrift(permutations=rules.permutations, seed=_SEED, tests={"p_value": [gt(rules.max_p_value)]})
    shown = [metric for name in _NUMBERS for metric in (MeanValue(column=name), ValueDrift(column=name, method="ks"))]
    report = Report([topic, RowCount(), *shown])
    snapshot = report.run(_dataset(current, current_vectors), _dataset(reference, reference_vectors))
    values = snapshot.dict()["metrics"][0]["value"]
    # What `save_html` writes, without the way over a file.
    page = snapshot.get_html_str(as_iframe=False)
    return Measured(float(values["statistic"]), float(values["p_value"]), page)


def _dataset(rows: Sequence[PredictionLog], vectors: NDArray[np.float32]) -> Dataset:
    numbers = {
        "prompt_words": [len(row.prompt.split()) for row in rows],
        "prompt_tokens": [row.n_prompt_tokens for row in rows],
        "response_tokens": [row.n_response_tokens for row in rows],
        "latency_ms": [row.latency_ms for row in rows],
    }
    columns = [f"{_EMBEDDING}{number}" for number in range(vectors.shape[1])]
    frame = pd.concat([pd.DataFrame(numbers), pd.DataFrame(vectors, columns=columns)], axis=1)
    return Dataset.from_pandas(frame, data_definition=DataDefinition(numerical_columns=list(_NUMBERS)))


def _embedding(dataset: Dataset) -> NDArray[np.float32]:
    frame = dataset.as_dataframe()
    vectors: NDArray[np.float32] = frame[[name for name in frame.columns if name.startswith(_EMBEDDING)]].to_numpy()
    return vectors
