"""Where things are in the bucket. The only place that spells a key."""

from __future__ import annotations

from datetime import datetime

RECIPES = "recipes/"
DATASETS = "datasets/"
INDEXES = "indexes/"
INBOX = "inbox/"
PROBE = "probe/"  # what the start-up probe writes, and removes


def inbox_prefix(model: str) -> str:
    """The user's folder: read by Tidemill, never written except by `tidemill drop`, never deleted from."""
    return f"{INBOX}{model}/"


def recipe_key(model: str) -> str:
    return f"{RECIPES}{model}.yaml"


def dataset_prefix(model: str, dataset_id: str) -> str:
    """Holds `shards/<split>-*.parquet`, `signatures/`, `shingles/`, `rejects/`, `metrics/` and `manifest.json`."""
    return f"{DATASETS}{model}/{dataset_id}/"


def index_prefix(model: str, index_id: str) -> str:
    """Holds `signatures/` and `shingles/` of several datasets together, and `manifest.json`."""
    return f"{INDEXES}{model}/{index_id}/"


def version_folder(model: str, version: str) -> str:
    """Everything that was made of a version."""
    return f"models/{model}/{version}/"


def version_prefix(model: str, version: str, part: str) -> str:
    """`part` is `adapter`, `onnx` or `bento`."""
    return f"{version_folder(model, version)}{part}/"


def report_prefix(model: str, kind: str, report_id: str) -> str:
    """`kind` is `check`, `training`, `evaluation`, `drift`, `rollout` or `experiment`."""
    return f"reports/{model}/{kind}/{report_id}/"


def log_prefix(model: str) -> str:
    return f"logs/{model}/"


def log_key(model: str, at: datetime, writer: str, sequence: int) -> str:
    """`writer` names one replica process, so that no two write the same key. Keys of one day sort by time."""
    return f"{log_prefix(model)}dt={at:%Y-%m-%d}/{at:%H%M%S}-{writer}-{sequence:06d}.parquet"


def feedback_prefix(model: str) -> str:
    """Scores and labels of answers, as JSON lines: users put objects of any name here, Tidemill reads them."""
    return f"feedback/{model}/"


def feedback_key(model: str, at: datetime, writer: str) -> str:
    """`writer` names one object, so that no two have the same key. Keys sort by time."""
    return f"{feedback_prefix(model)}dt={at:%Y-%m-%d}/{at:%H%M%S}-{writer}.jsonl"


def manifest_key(prefix: str) -> str:
    return f"{prefix}manifest.json"
