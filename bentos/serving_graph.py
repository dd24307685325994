"""Fit an exported graph to serving: logits of the last position only, and an embedding that stays in the file.

Neither changes a single value. Both are found by pattern; a graph that looks otherwise is left as it is, and the
server copes with either.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bentos.decoder import GRAPH

WEIGHTS = "model.onnx.data"
_LAST = "tidemill_last_position"
_EMBEDDING = "tidemill_embedding"


def fit_for_serving(source: Path, target: Path) -> tuple[str, ...]:
    """Write `source`'s graph and weights, changed, into the folder `target`. Returns what was changed, in words."""
    model = onnx.load(source / GRAPH)
    changes = []
    if _only_last_logits(model):
        changes.append("logits of the last position only")
    if _embedding_as_table(model):
        changes.append("embedding stored as a table")
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(
        model,
        target / GRAPH,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=WEIGHTS,
        # Small constants stay in the graph, where shape inference can see them.
        size_threshold=1024,
        convert_attribute=False,
    )
    return tuple(changes)


def _only_last_logits(model: onnx.ModelProto) -> bool:
    """A prompt of n tokens needs one row of logits, not n: a fifth of the arithmetic here, and 200 kB for each row.

    `logits = head(hidden [b, n, h])` becomes `head(hidden[:, -1:])`.
    """
    graph = model.graph
    head = next((node for node in graph.node if "logits" in node.output), None)
    if head is None or head.op_type not in ("MatMul", "MatMulNBits"):
        return False
    hidden = head.input[0]
    last = numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{_LAST}_index")
    graph.initializer.append(last)
    gather = helper.make_node("Gather", [hidden, last.name], [_LAST], name=_LAST, axis=1)
    head.input[0] = _LAST
    graph.node.insert(list(graph.node).index(head), gather)
    for output in graph.output:
        if output.name == "logits":
            output.type.tensor_type.shape.dim[1].dim_value = 1
    return True


def _embedding_as_table(model: onnx.ModelProto) -> bool:
    """The exporter stores a tied embedding once, as the head's `[h, vocabulary]`, and looks up in its transpose.

    With an 8-bit head only the lookup still needs the floats, and the runtime would transpose them at every start into
    memory of its own (113 MB here). Stored as `[vocabulary, h]` they are mapped, and only rows that are used are read.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for transpose in graph.node:
        if transpose.op_type != "Transpose" or transpose.input[0] not in weights:
            continue
        lookups = [node for node in graph.node if transpose.output[0] in node.input]
        others = [node for node in graph.node if transpose.input[0] in node.input and node is not transpose]
        if others or not all(node.op_type == "Gather" and node.input[0] == transpose.output[0] for node in lookups):
            continue
        old = weights[transpose.input[0]]
        if len(old.dims) != 2:
            continue
        table = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(old).T), _EMBEDDING)
        for node in lookups:
            node.input[0] = _EMBEDDING
        graph.node.remove(transpose)
        graph.initializer.remove(old)
        graph.initializer.append(table)
        return True
    return False
