from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import reports
from lake.bucket import Bucket
from lake.records import CheckReport

REPORT = CheckReport(
    check_id="c1",
    dataset_id="d1",
    passed=True,
    n_expectations=1,
    failures=(),
    data_docs_key="reports/docs/check/c1/validation.html",
)


def test_the_data_gates_artifact_holds_its_report_picture_and_link(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "reports/docs/check/c1"
    bucket.put(f"{folder}/report.md", b"## docs, dataset d1: passed\n")
    bucket.put(f"{folder}/report.png", b"\x89PNG")
    made: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(reports, "create_markdown_artifact", lambda text, **named: made.append((text, named)))
    reports.data_check_artifact(bucket, REPORT)
    ((text, named),) = made
    assert text.startswith("## docs, dataset d1: passed\n")
    assert "(data:image/png;base64,iVBORw==)" in text
    assert f"/{Path(REPORT.data_docs_key)}?" in text  # signed
    assert named == {"key": "data-docs", "description": "dataset d1: passed the data gate"}
