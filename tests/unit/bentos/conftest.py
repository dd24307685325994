"""The tiny model, exported and as it is served."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bentos.decoder import GRAPH
from bentos.serving_graph import WEIGHTS, fit_for_serving
from tests.tiny_export import write_tiny_export


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the export: `model.onnx`, tokenizer, `tidemill.json`."""
    return write_tiny_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="session")
def served_folder(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after what packaging changes in it."""
    folder = tmp_path_factory.mktemp("served")
    fit_for_serving(tiny_export, folder)
    for path in tiny_export.iterdir():
        if path.name not in (GRAPH, WEIGHTS):
            shutil.copyfile(path, folder / path.name)
    return folder
