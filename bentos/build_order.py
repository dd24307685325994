"""What packaging asks of the process that builds."""

from __future__ import annotations

from lake.records import Record


class BuildOrder(Record):
    """What to build. `source` is the bento's source; None puts the model alone into the store."""

    model: str
    version: str
    labels: dict[str, str]
    onnx: str
    scratch: str
    source: str | None
    packages: tuple[str, ...]

    @property
    def tag(self) -> str:
        return f"{self.model}:{self.version}"
