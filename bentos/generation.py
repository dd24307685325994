"""One request's way from prompt to text: what to generate, how far it is, and whom to tell."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bentos.sampling import Sampler, Sampling
from bentos.text import Detokenizer, StopMatcher, TextCodec

log = logging.getLogger(__name__)

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Prompt:
    """What to generate from: tokens (at least one), bounds and how to choose."""

    tokens: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """News of one generation: new text (it may be empty), tokens generated so far, and the reason when it has ended."""

    text: str
    n_tokens: int
    finish: FinishReason | None = None


class Generation:
    """One request on its way. `cancel` may be called from any thread, more than once, and after the end."""

    def __init__(self, prompt: Prompt, codec: TextCodec, tell: Callable[[Piece], None]) -> None:
        self.prompt = prompt
        self.cancelled = False
        self._tell = tell
        self._sampler = Sampler(prompt.sampling)
        self._detokenizer = Detokenizer(codec)
        self._stops = StopMatcher(prompt.stops)
        self._n_tokens = 0
        self.last_token = 0

    def cancel(self) -> None:
        self.cancelled = True

    def advance(self, logits: NDArray[np.float32], end_tokens: frozenset[int]) -> bool:
        """Choose the next token and tell its text. Returns whether the generation has ended."""
        token = self._sampler.choose(logits)
        self._n_tokens += 1
        if token in end_tokens:
            return self._finish("stop", self._rest())
        self.last_token = token
        text, stopped = self._stops.push(self._detokenizer.push(token))
        if stopped:
            return self._finish("stop", text)
        if self._n_tokens >= self.prompt.max_tokens:
            rest, stopped = self._stops.push(self._detokenizer.finish())
            return self._finish("stop" if stopped else "length", text + rest + self._stops.finish())
        self._told(Piece(text, self._n_tokens))
        return False

    def end(self, reason: FinishReason) -> None:
        """End without another token."""
        self._finish(reason, self._rest())

    def _rest(self) -> str:
        text, _ = self._stops.push(self._detokenizer.finish())
        return text + self._stops.finish()

    def _finish(self, reason: FinishReason, text: str) -> bool:
        self._told(Piece(text, self._n_tokens, reason))
        return True

    def _told(self, piece: Piece) -> None:
        try:
            self._tell(piece)
        except Exception:
            # The listener is gone (its event loop is closed): nobody wants the rest.
            log.debug("a listener failed", exc_info=True)
            self.cancelled = True
