"""A client that reads a stream of tokens while other things happen."""

from __future__ import annotations

import threading

import httpx

from benchmarks._gateway_installation import MODEL, Installation


class Stream(threading.Thread):
    """Reads one stream to its end. `version` is who has begun it, `ended` its last line."""

    def __init__(self, installed: Installation) -> None:
        super().__init__(daemon=True)
        self._installed, self.version, self.ended = installed, "", "nothing"

    def run(self) -> None:
        asked = {"model": MODEL, "stream": True}
        try:
            with httpx.stream(
                "POST", self._installed.url, json=asked, headers=self._installed.headers, timeout=60
            ) as answer:
                self.version = answer.headers.get("x-tidemill-model", str(answer.status_code))
                for line in filter(None, answer.iter_lines()):
                    self.ended = line.removeprefix("data: ")
        except httpx.HTTPError as error:
            self.ended = repr(error)
