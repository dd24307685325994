"""The loss curve as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def loss_curve_png(losses: Sequence[float], validation_loss: float, title: str) -> bytes:
    """PNG of the training loss (nats per token) over steps, with the final validation loss as a line."""
    figure = Figure(figsize=(6, 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, color="#1b6ca8", label="training")
    if math.isfinite(validation_loss):
        axes.axhline(validation_loss, color="#c8553d", linestyle="--", label=f"validation {validation_loss:.3f}")
    axes.set(xlabel="step", ylabel="loss, nats per token", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return sink.getvalue()
