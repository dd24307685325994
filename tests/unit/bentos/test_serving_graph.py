from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from bentos.serving_graph import fit_for_serving


def logits_of(graph: Path, tokens: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    feeds: dict[str, np.ndarray] = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    for found in session.get_inputs():
        if found.name.startswith("past_key_values."):
            feeds[found.name] = np.zeros((len(tokens), found.shape[1], 0, 16), dtype=np.float32)
    return session.run(["logits"], feeds)[0]


@pytest.fixture(scope="module")
def int8_export(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    model = onnx.load(tiny_export / "model.onnx")
    quantizer = MatMulNBitsQuantizer(model, bits=8, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "model.onnx"), True)
    return folder


def test_the_last_positions_logits_are_the_same_bit_for_bit(int8_export: Path, tmp_path: Path) -> None:
    changes = fit_for_serving(int8_export, tmp_path)

    tokens = np.random.default_rng(0).integers(2, 1024, (2, 9))
    whole = logits_of(int8_export / "model.onnx", tokens)
    last = logits_of(tmp_path / "model.onnx", tokens)
    assert len(changes) == 2
    assert whole.shape == (2, 9, 1024)
    assert last.shape == (2, 1, 1024)
    np.testing.assert_array_equal(whole[:, -1:], last)


def test_the_embedding_of_an_8_bit_model_is_looked_up_without_a_transpose(int8_export: Path, tmp_path: Path) -> None:
    fit_for_serving(int8_export, tmp_path)

    graph = onnx.load(tmp_path / "model.onnx").graph
    assert "Transpose" not in {node.op_type for node in graph.node}
    assert [1024, 64] in [list(tensor.dims) for tensor in graph.initializer]


def test_weights_that_the_head_still_needs_stay_as_they_are(tiny_export: Path, tmp_path: Path) -> None:
    """In fp32 the head multiplies by the very matrix that the embedding transposes."""
    changes = fit_for_serving(tiny_export, tmp_path)

    assert changes == ("logits of the last position only",)


def test_a_graph_of_another_shape_is_left_alone(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["hidden", "weight"], ["raw"]), helper.make_node("Relu", ["raw"], ["logits"])],
        "other",
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["b", "n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "n", 4])],
        [weight],
    )
    source = tmp_path / "source"
    source.mkdir()
    onnx.save(helper.make_model(graph), source / "model.onnx")

    assert fit_for_serving(source, tmp_path / "target") == ()
    assert [node.op_type for node in onnx.load(tmp_path / "target" / "model.onnx").graph.node] == ["MatMul", "Relu"]
