"""Keys in the bucket: users' folders and ours do not overlap, logs sort by time."""

from __future__ import annotations

from datetime import UTC, datetime

from lake import layout


def test_what_tidemill_writes_is_outside_of_what_users_write() -> None:
    ours = [
        layout.dataset_prefix("m", "d"),
        layout.version_prefix("m", "v1", "onnx"),
        layout.report_prefix("m", "check", "c"),
        layout.log_prefix("m"),
        layout.PROBE,
    ]
    theirs = [layout.inbox_prefix("m"), layout.feedback_prefix("m"), layout.RECIPES]
    assert all(prefix.endswith("/") for prefix in ours + theirs)
    assert not any(mine.startswith(other) or other.startswith(mine) for mine in ours for other in theirs)
    assert layout.recipe_key("m") == "recipes/m.yaml"


def test_one_model_s_prefix_is_not_the_beginning_of_another_s() -> None:
    assert not layout.inbox_prefix("docs-2").startswith(layout.inbox_prefix("docs"))


def test_logs_of_one_day_sort_by_time() -> None:
    times = [datetime(2026, 1, 1, 9, 5, 1, tzinfo=UTC), datetime(2026, 1, 1, 10, 0, 0, tzinfo=UTC)]
    keys = [layout.log_key("m", at, "writer", n) for n, at in enumerate(times)]
    assert keys == sorted(keys)
    assert keys[0] == "logs/m/dt=2026-01-01/090501-writer-000000.parquet"


def test_feedback_that_tidemill_writes_for_a_user_lies_where_users_put_theirs() -> None:
    key = layout.feedback_key("m", datetime(2026, 1, 1, 9, 5, 1, tzinfo=UTC), "w")
    assert key == "feedback/m/dt=2026-01-01/090501-w.jsonl"
    assert key.startswith(layout.feedback_prefix("m"))
