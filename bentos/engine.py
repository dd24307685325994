"""Generate text for many requests at once: one thread that steps every running sequence together.

Continuous batching: a request joins as soon as a row is free and leaves when it is done; nobody waits for a batch to
fill or to end. Prompts are read in chunks between two steps, so that a long one delays the others by one chunk only.
A prompt that begins like one whose keys and values are still in the cache (the same system message, an earlier turn of
the same conversation) is read from where they part.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bentos.decoder import Decoder
from bentos.generation import FinishReason, Generation, Piece, Prompt
from bentos.text import TextCodec

log = logging.getLogger(__name__)

# Larger chunks read prompts no faster here (the 8-bit kernel is bound by arithmetic from 16 tokens on), and delay
# running answers more: 64 tokens take 0.13 s on two AVX2 cores.
CHUNK_TOKENS = 64
# Shorter common beginnings are not worth a copy of the cache.
_MIN_REUSED_TOKENS = 8
# Prompts that the cache keeps in idle rows for their beginnings, in tokens over all rows (46 kB each for 135M).
_KEPT_TOKENS = 2048
# Memory behind a kept prompt is given back in no smaller pieces than this.
_SLACK_TOKENS = 64


class QueueFullError(Exception):
    """As many requests wait as may wait."""


class EngineStoppedError(Exception):
    """The engine takes no more requests."""


class Observer(Protocol):
    """Is told by the engine's thread what it does."""

    def stepped(self, n_rows: int) -> None: ...

    def prefilled(self, n_tokens: int, n_reused: int) -> None: ...


@dataclass
class _Row:
    """One row of the cache: how many positions are filled, and which of them were read from a prompt."""

    prompt: tuple[int, ...] = ()
    length: int = 0


class Engine:
    """Owns the decoder and the thread that drives it."""

    def __init__(
        self,
        decoder: Decoder,
        codec: TextCodec,
        *,
        end_tokens: Sequence[int],
        max_waiting: int,
        observer: Observer | None = None,
    ) -> None:
        self.codec, self.context_length = codec, decoder.context_length
        self._decoder, self._observer = decoder, observer
        self._end_tokens = frozenset(end_tokens)
        self._max_waiting = max_waiting
        self._rows = [_Row() for _ in range(decoder.n_slots)]
        self._running: list[Generation] = []  # in rows 0 … n-1, which are stepped together
        self._reading: tuple[int, Generation] | None = None  # the row whose prompt is being read
        self._waiting: deque[Generation] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, prompt: Prompt, tell: Callable[[Piece], None]) -> Generation:
        """Queue a prompt. `tell` gets every piece from the engine's thread; the last one has a `finish`.

        Raises QueueFullError, EngineStoppedError, and ValueError for a prompt that does not fit the context.
        """
        if not prompt.tokens or len(prompt.tokens) >= self.context_length or prompt.max_tokens < 1:
            raise ValueError(
                f"{len(prompt.tokens)} prompt tokens and max_tokens={prompt.max_tokens}, expected at least 1 of each "
                f"and fewer than {self.context_length} in the prompt"
            )
        generation = Generation(prompt, self.codec, tell)
        with self._wake:
            if self._stopping:
                raise EngineStoppedError
            if len(self._waiting) >= self._max_waiting:
                raise QueueFullError
            self._waiting.append(generation)
            self._wake.notify()
        return generation

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    @property
    def n_running(self) -> int:
        return len(self._running) + (self._reading is not None)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop: what still runs or waits ends as cancelled."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._stopping or self._waiting or self.n_running):
                    self._wake.wait()
                if self._stopping:
                    break
            try:
                self._drop_cancelled()
                self._read_prompt()
                self._step()
            except Exception:
                # An out-of-memory or a broken graph must not leave clients waiting, nor end the thread.
                log.exception("generation failed; all running requests end with an error")
                self._end_all("error")
        self._end_all("cancelled")

    def _drop_cancelled(self) -> None:
        with self._wake:
            gone = [generation for generation in self._waiting if generation.cancelled]
            for generation in gone:
                self._waiting.remove(generation)
        if self._reading is not None and self._reading[1].cancelled:
            gone.append(self._reading[1])
            self._reading = None
        ended = [index for index, generation in enumerate(self._running) if generation.cancelled]
        gone.extend(self._running[index] for index in ended)
        self._leave(ended)
        for generation in gone:
            generation.end("cancelled")

    def _read_prompt(self) -> None:
        """Read one chunk of the prompt that is being read, or begin with the next one that waits."""
        if self._reading is None:
            self._reading = self._admit()
        if self._reading is None:
            return
        index, generation = self._reading
        row, tokens = self._rows[index], generation.prompt.tokens
        end = min(row.length + CHUNK_TOKENS, len(tokens))
        if len(tokens) - end == 1:
            end -= 1  # no chunk of one token: see _common
        logits = self._decoder.prefill(index, np.array(tokens[row.length : end], dtype=np.int64), row.length)
        row.length, row.prompt = end, tokens[:end]
        if end < len(tokens):
            return
        self._reading = None
        self._move(index, len(self._running))
        self._running.append(generation)
        if generation.advance(logits, self._end_tokens):
            self._leave([len(self._running) - 1])

    def _admit(self) -> tuple[int, Generation] | None:
        """Give the oldest waiting request the first row that is not stepped, with what the cache knows of its prompt."""
        target = len(self._running)
        with self._wake:
            if not self._waiting or target == len(self._rows):
                return None
            generation = self._waiting.popleft()
        tokens = generation.prompt.tokens
        common = [_common(row.prompt, tokens) for row in self._rows]
        n_common = max(common)
        if n_common < _MIN_REUSED_TOKENS:
            n_common = 0
        elif common[target] < n_common:
            self._decoder.copy(common.index(n_common), target, n_common)
        self._rows[target] = _Row(prompt=tokens[:n_common], length=n_common)
        if self._observer:
            self._observer.prefilled(len(tokens), n_common)
        return target, generation

    def _step(self) -> None:
        """One token more for every running sequence."""
        n_running = len(self._running)
        if not n_running:
            return
        rows = self._rows[:n_running]
        tokens = np.array([generation.last_token for generation in self._running], dtype=np.int64)
        logits = self._decoder.step(tokens, np.array([row.length for row in rows], dtype=np.int64))
        if self._observer:
            self._observer.stepped(n_running)
        ended = []
        for index, (row, generation) in enumerate(zip(rows, self._running, strict=True)):
            row.length += 1
            if generation.advance(logits[index], self._end_tokens):
                ended.append(index)
            elif row.length >= self.context_length:
                generation.end("length")
                ended.append(index)
        self._leave(ended)

    def _leave(self, ended: Sequence[int]) -> None:
        """Take sequences out of the running rows. The last one takes each place, so that all stay side by side."""
        for index in reversed(ended):
            last = self._running.pop()
            if index < len(self._running):
                self._running[index] = last
                self._move(len(self._running), index)
        if ended:
            self._forget()

    def _move(self, source: int, target: int) -> None:
        """Put a row's sequence into another row, whose own is over. The prompt that it leaves behind stays known."""
        if source != target:
            moved = self._rows[source]
            self._decoder.copy(source, target, moved.length)
            self._rows[source], self._rows[target] = _Row(moved.prompt, moved.length), moved

    def _forget(self) -> None:
        """Bound the memory of idle rows: the prompts that fit are kept, lower rows first, and nothing that was generated."""
        n_kept, reading = 0, self._reading[0] if self._reading is not None else None
        for index, row in enumerate(self._rows):
            if index < len(self._running) or index == reading:
                continue
            if n_kept + len(row.prompt) > _KEPT_TOKENS:
                row.prompt = ()
            n_kept += len(row.prompt)
            if row.length > len(row.prompt) + _SLACK_TOKENS:
                self._decoder.release(index, len(row.prompt))
                row.length = len(row.prompt)

    def _end_all(self, reason: FinishReason) -> None:
        """End what runs, and once the engine stops also what waits; the cache is not trusted any more."""
        left = list(self._running)
        if self._reading is not None:
            left.append(self._reading[1])
        with self._wake:
            if self._stopping:
                left.extend(self._waiting)
                self._waiting.clear()
        self._rows = [_Row() for _ in self._rows]
        self._running, self._reading = [], None
        for generation in left:
            generation.end(reason)


def _common(cached: tuple[int, ...], tokens: tuple[int, ...]) -> int:
    """How many positions of a cached prompt can serve a new one.

    Two tokens are always left to read: the logits after the last are needed, and a chunk of a single token takes
    another path through the attention kernel, whose last bits differ. So an answer never depends on what was cached.
    """
    limit = max(min(len(cached), len(tokens) - 2), 0)
    return next((index for index in range(limit) if cached[index] != tokens[index]), limit)
