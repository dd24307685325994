"""A real little Llama, exported as the export stage does it, against torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from beam_jobs.perplexity.language_model import LanguageModel
from bentos.serving_graph import fit_for_serving
from lake.errors import TidemillError
from tests.tiny_export import write_tiny_export
from tests.tiny_model import CONTEXT_LENGTH


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def texts(paragraphs: list[str]) -> list[str]:
    """Of 3 to some 900 tokens, in no order."""
    return [paragraphs[0], "short", " ".join(paragraphs[1:8]), *paragraphs[8:14], "import this", paragraphs[14]]


@pytest.fixture(scope="module", params=[64, 512])
def by_torch(request: pytest.FixtureRequest, export: Path, texts: list[str]) -> tuple[int, np.ndarray]:
    """How many tokens are read, and the perplexities over them."""
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(export.parent / "model").eval()
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids[: request.param]])
        with torch.inference_mode():
            found.append(cross_entropy(model(ids).logits[0, :-1], ids[0, 1:]).exp().item())
    return request.param, np.array(found)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_perplexity_is_torchs_whatever_the_batch(
    export: Path, texts: list[str], by_torch: tuple[int, np.ndarray], batch_size: int
) -> None:
    max_tokens, expected = by_torch
    model = LanguageModel(export, max_tokens=max_tokens, batch_size=batch_size, n_threads=1)

    np.testing.assert_allclose(model.perplexities(texts), expected, rtol=1e-3)


def test_neither_order_nor_company_changes_a_score(export: Path, texts: list[str]) -> None:
    model = LanguageModel(export, max_tokens=128, batch_size=4, n_threads=1)

    np.testing.assert_allclose(model.perplexities(texts[::-1])[::-1], model.perplexities(texts), rtol=1e-4)
    np.testing.assert_allclose([model.perplexities([text])[0] for text in texts], model.perplexities(texts), rtol=1e-4)


def test_only_the_first_tokens_count(export: Path, texts: list[str]) -> None:
    model = LanguageModel(export, max_tokens=32, batch_size=4, n_threads=1)

    whole, longer = model.perplexities([texts[0], texts[0] + " and much else besides"])

    assert longer == pytest.approx(whole, rel=1e-5)


def test_no_more_tokens_are_read_than_the_model_has_positions_for(export: Path, texts: list[str]) -> None:
    long = " ".join(texts) * 3
    wanted, most = (
        LanguageModel(export, max_tokens=n, batch_size=1, n_threads=1) for n in (10 * CONTEXT_LENGTH, CONTEXT_LENGTH)
    )

    assert wanted.perplexities([long])[0] == pytest.approx(most.perplexities([long])[0], rel=1e-5)


def test_a_text_of_one_token_or_none_has_no_perplexity(export: Path) -> None:
    model = LanguageModel(export, max_tokens=32, batch_size=4, n_threads=1)

    found = model.perplexities(["", "a", "a text"])

    assert np.isnan(found).tolist() == [True, True, False]
    assert model.perplexities([]).shape == (0,)


def test_a_graph_fitted_for_serving_is_refused_as_it_tells_the_last_token_alone(export: Path, tmp_path: Path) -> None:
    fit_for_serving(export, tmp_path)
    for name in ("genai_config.json", "tokenizer.json"):
        shutil.copyfile(export / name, tmp_path / name)

    with pytest.raises(TidemillError, match="last token only") as caught:
        LanguageModel(tmp_path, max_tokens=32, batch_size=4)
    assert "models/…/onnx/" in caught.value.remedy


@pytest.mark.parametrize("missing", ["model.onnx", "genai_config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused_by_name(export: Path, tmp_path: Path, missing: str) -> None:
    for name in {"model.onnx", "genai_config.json", "tokenizer.json"} - {missing}:
        shutil.copyfile(export / name, tmp_path / name)

    with pytest.raises(TidemillError, match=f"got no {missing}"):
        LanguageModel(tmp_path, max_tokens=32, batch_size=4)


@pytest.mark.parametrize("broken", ["model.onnx", "genai_config.json", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_refused_with_a_remedy(export: Path, tmp_path: Path, broken: str) -> None:
    for path in export.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / broken).write_bytes(b"{}" if broken == "genai_config.json" else b"nothing of the kind")

    with pytest.raises(TidemillError, match=r"perplexity\.model"):
        LanguageModel(tmp_path, max_tokens=32, batch_size=4)
