"""A tiny model, recipes for it, and datasets as `prepare` leaves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from lake.bucket import Bucket, BucketAddress
from lake.layout import dataset_prefix
from lake.recipe import Recipe
from lake.records import SPLITS, Dataset
from lake.settings import Settings
from tests.tiny_model import prose, write_tiny_model

MODEL = "tiny"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def recipe(tiny_model: Path) -> Recipe:
    """Ten steps of four short sequences."""
    return Recipe.model_validate(
        {
            "name": MODEL,
            "base_model": f"file:{tiny_model}",
            "training": {
                "rank": 4,
                "alpha": 8,
                "learning_rate": 0.03,
                "steps": 10,
                "batch_size": 4,
                "sequence_length": 64,
                "warmup_steps": 2,
                "checkpoint_every_steps": 4,
                "validation_tokens": 256,
            },
            "gate": {"held_out_tokens": 512},
        }
    )


@pytest.fixture
def address(settings: Settings) -> BucketAddress:
    return BucketAddress.of(settings)


@pytest.fixture
def write_dataset(bucket: Bucket) -> Callable[..., Dataset]:
    """Call with an id, and the texts of each split (by default some prose, other prose for another `seed`)."""

    def write(
        dataset_id: str,
        train: Sequence[str] | None = None,
        validation: Sequence[str] | None = None,
        test: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Dataset:
        texts = prose(30, seed)
        splits = dict(zip(SPLITS, (train, validation, test), strict=True))
        chosen = dict(zip(SPLITS, (texts[:20], texts[20:25], texts[25:]), strict=True))
        chosen |= {split: list(given) for split, given in splits.items() if given is not None}
        prefix = dataset_prefix(MODEL, dataset_id)
        for split, listed in chosen.items():
            bucket.put_table(f"{prefix}shards/{split}-00000.parquet", pa.table({"text": pa.array(listed, pa.string())}))
        n_kept = sum(map(len, chosen.values()))
        return Dataset(
            dataset_id=dataset_id,
            model=MODEL,
            drop_id=f"drop-of-{dataset_id}",
            prefix=prefix,
            history_ids=(),
            n_objects=1,
            n_read=n_kept,
            n_kept=n_kept,
            rejected={},
            redacted={},
            n_documents={split: len(listed) for split, listed in chosen.items()},
            n_characters={split: sum(map(len, listed)) for split, listed in chosen.items()},
        )

    return write
