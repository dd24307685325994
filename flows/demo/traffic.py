"""Clients for the demo: the stock openai client, a bounded number of threads, every answer counted by version."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import openai

from lake.settings import Settings

MAX_TOKENS = 12


class Traffic:
    """Asks questions of the current subjects until stopped. Failures are counted, never retried away."""

    def __init__(self, settings: Settings, model: str, n_clients: int = 3) -> None:
        self._client = openai.OpenAI(
            base_url=f"{settings.gateway_url}/v1", api_key=settings.gateway_api_key, max_retries=0, timeout=120
        )
        self._model = model
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._questions: Sequence[str] = ()
        self._pause_s = 1.0
        self._active = 1
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.failed_in_drill: Counter[str] = Counter()
        self._drilling = False
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(n_clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the clients; each finishes the request it is at."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=130)

    def ask_about(self, questions: Sequence[str]) -> None:
        """Change what is asked from the next request on."""
        with self._lock:
            self._questions = tuple(questions)

    def pace(self, n_clients: int, pause_s: float) -> None:
        """How many clients are active, and how long each pauses between two requests."""
        with self._lock:
            self._active, self._pause_s = n_clients, pause_s

    @contextmanager
    def drill(self) -> Iterator[None]:
        """Failures within are the drill's: they are counted apart from the others."""
        self._drilling = True
        try:
            yield
        finally:
            self._drilling = False

    def _run(self, number: int) -> None:
        draw = random.Random(number)  # noqa: S311  (chooses questions, no secrets)
        while not self._stopping.is_set():
            with self._lock:
                questions, pause_s, idle = self._questions, self._pause_s, number >= self._active
            if idle or not questions:
                self._stopping.wait(0.5)
                continue
            self._ask(draw.choice(questions))
            self._stopping.wait(pause_s)

    def _ask(self, question: str) -> None:
        version = "gateway"
        try:
            answer = self._client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=[{"role": "user", "content": question}],
                max_tokens=MAX_TOKENS,
                temperature=0.0,
            )
            version = answer.headers.get("x-tidemill-model", "unknown")
            answer.parse()
            self.answered[version] += 1
        except openai.OpenAIError as error:
            if isinstance(error, openai.APIStatusError):
                version = error.response.headers.get("x-tidemill-model", version)
            (self.failed_in_drill if self._drilling else self.failed)[version] += 1
            self._stopping.wait(0.2)
