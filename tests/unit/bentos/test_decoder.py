from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bentos.decoder import GRAPH, Decoder
from lake.errors import TidemillError

CONTEXT = 512


@pytest.fixture
def decoder(served_folder: Path) -> Decoder:
    return Decoder(served_folder / GRAPH, n_slots=4, context_length=CONTEXT, n_threads=1)


def tokens(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(2, 1024, n)


def step(decoder: Decoder, chosen: Sequence[int], lengths: Sequence[int]) -> np.ndarray:
    return decoder.step(np.array(chosen, dtype=np.int64), np.array(lengths, dtype=np.int64))


def test_reading_a_prompt_in_chunks_is_reading_it_whole(decoder: Decoder) -> None:
    prompt = tokens(50)

    whole = decoder.prefill(0, prompt, 0)
    for start in range(0, 50, 16):
        chunked = decoder.prefill(1, prompt[start : start + 16], start)

    np.testing.assert_allclose(chunked, whole, atol=1e-5)


def test_a_step_with_the_cache_is_a_longer_prompt_without(decoder: Decoder) -> None:
    prompt = tokens(20)
    decoder.prefill(0, prompt[:-1], 0)

    stepped = step(decoder, [prompt[-1]], [19])

    np.testing.assert_allclose(stepped[0], decoder.prefill(1, prompt, 0), atol=1e-5)


def test_rows_of_different_lengths_step_together_as_each_alone(decoder: Decoder) -> None:
    prompts = [tokens(n, seed=n) for n in (3, 40, 11)]
    for slot, prompt in enumerate(prompts):
        decoder.prefill(slot, prompt, 0)

    together = step(decoder, [5, 6, 7], [3, 40, 11])

    for logits, prompt, token in zip(together, prompts, (5, 6, 7), strict=True):
        np.testing.assert_allclose(logits, decoder.prefill(3, np.append(prompt, token), 0), atol=1e-5)


def test_what_an_earlier_sequence_left_in_a_slot_does_not_matter(decoder: Decoder) -> None:
    fresh = decoder.prefill(0, tokens(10), 0)
    decoder.prefill(1, tokens(200, seed=1), 0)

    np.testing.assert_array_equal(decoder.prefill(1, tokens(10), 0), fresh)


def test_a_copied_slot_goes_on_like_its_original(decoder: Decoder) -> None:
    decoder.prefill(0, tokens(30), 0)
    decoder.copy(0, 1, 30)

    original, copied = step(decoder, [9, 9], [30, 30])

    np.testing.assert_array_equal(copied, original)


def test_releasing_memory_keeps_the_first_positions_and_the_other_slots(decoder: Decoder) -> None:
    for slot in (0, 1, 2):
        decoder.prefill(slot, tokens(400, seed=slot), 0)
    before = step(decoder, [9, 9, 9], [400, 32, 400])

    decoder.release(1, 32)

    np.testing.assert_array_equal(step(decoder, [9, 9, 9], [400, 32, 400]), before)


def test_the_last_position_of_the_context_can_be_filled(decoder: Decoder) -> None:
    prompt = tokens(CONTEXT)
    decoder.prefill(0, prompt[:-1], 0)

    last = step(decoder, [prompt[-1]], [CONTEXT - 1])

    np.testing.assert_allclose(last[0], decoder.prefill(1, prompt, 0), atol=1e-5)


def test_a_graph_that_was_not_fitted_for_serving_works_as_well(decoder: Decoder, tiny_export: Path) -> None:
    plain = Decoder(tiny_export / GRAPH, n_slots=1, context_length=CONTEXT, n_threads=1)

    np.testing.assert_array_equal(plain.prefill(0, tokens(12), 0), decoder.prefill(0, tokens(12), 0))


def test_another_kind_of_model_is_refused(tmp_path: Path, served_folder: Path) -> None:
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Relu", ["pixels"], ["logits"])],
        "other",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / GRAPH)
    shutil.copy(served_folder / "genai_config.json", tmp_path)

    with pytest.raises(TidemillError, match="pixels"):
        Decoder(tmp_path / GRAPH, n_slots=1, context_length=8, n_threads=1)
