"""Put a model and its bento into BentoML's store. Run as `python -m bentos.build_bento ORDER.json`.

A process of its own, because BentoML binds its home when it is imported; started in the folder that becomes the
bento's source, so that a file which is missing there fails the build and not the server.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import bentoml

from bentos.build_order import BuildOrder
from bentos.decoder import GRAPH
from bentos.serving_graph import WEIGHTS, fit_for_serving

SERVICE = "bentos.service:TidemillService"


def main() -> None:
    order = BuildOrder.model_validate_json(Path(sys.argv[1]).read_text())
    changes = _save_model(order)
    if order.source is not None:
        _save_bento(order, order.source, changes)


def _save_model(order: BuildOrder) -> tuple[str, ...]:
    """The exported model, fitted for serving. Nothing is pickled: the model is its files."""
    exported, fitted = Path(order.onnx), Path(order.scratch) / "fitted"
    changes = fit_for_serving(exported, fitted)
    with bentoml.models.create(order.tag, labels=order.labels, metadata={"changes": list(changes)}) as model:
        folder = Path(model.path)
        for path in exported.iterdir():
            if path.name not in (GRAPH, WEIGHTS, "manifest.json"):
                shutil.copyfile(path, folder / path.name)
        for name in (GRAPH, WEIGHTS):
            shutil.move(fitted / name, folder / name)
    return changes


def _save_bento(order: BuildOrder, source: str, changes: tuple[str, ...]) -> None:
    bentoml.bentos.build(
        SERVICE,
        name=order.model,
        version=order.version,
        labels=order.labels,
        description=_description(order, changes),
        include=["**/*.py", "serving.json"],
        build_ctx=source,
        models=[order.tag],
        # Locking would ask a package index; the versions below are those that the model was checked with.
        python={"packages": list(order.packages), "lock_packages": False},
    )


def _description(order: BuildOrder, changes: tuple[str, ...]) -> str:
    labels = "\n".join(f"- {name}: `{value}`" for name, value in sorted(order.labels.items()))
    return (
        f"# {order.tag}\n\nOpenAI-compatible endpoint of `{order.model}`, version `{order.version}`, served by Tidemill."
        f"\n\n## Lineage\n\n{labels}\n\n## Changes to the exported graph\n\n{', '.join(changes) or 'none'}\n"
    )


if __name__ == "__main__":
    main()
