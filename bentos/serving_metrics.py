"""What a replica tells Prometheus beside BentoML's own series."""

from __future__ import annotations

import prometheus_client as prometheus

# Each a tenth above the one before, from 5 ms to a minute: quantiles of two versions are compared in them.
_SECONDS = tuple(round(0.005 * 1.1**power, 5) for power in range(100))
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class ServingMetrics:
    """Made once a process, after BentoML has said where its series are kept. An `engine.Observer`."""

    def __init__(self, model: str, version: str, registry: prometheus.CollectorRegistry = prometheus.REGISTRY) -> None:
        self._labels, self._registry = {"model": model, "version": version}, registry
        counter, histogram = self._counter, self._histogram
        self._answers = prometheus.Counter(
            "tidemill_answers", "Requests answered, by status.", [*self._labels, "status"], registry=registry
        )
        self.prompt_tokens = counter("tidemill_prompt_tokens", "Prompt tokens received.")
        self.reused_tokens = counter("tidemill_reused_prompt_tokens", "Prompt tokens that were still in the cache.")
        self.generated_tokens = counter("tidemill_generated_tokens", "Tokens generated.")
        self.logged_rows = counter("tidemill_logged_rows", "Rows written to the prediction log.")
        self.dropped_rows = counter("tidemill_dropped_log_rows", "Rows of the prediction log that were given up.")
        self.first_token_s = histogram("tidemill_first_token_seconds", "From a request to its first token.", _SECONDS)
        self.batch_size = histogram("tidemill_batch_size", "Sequences stepped together.", _BATCHES)
        self._waiting = prometheus.Gauge(
            "tidemill_waiting_requests",
            "Requests that wait.",
            list(self._labels),
            multiprocess_mode="livesum",
            registry=registry,
        ).labels(**self._labels)

    def answered(self, status: int) -> None:
        self._answers.labels(**self._labels, status=str(status)).inc()

    def waiting(self, n_requests: int) -> None:
        self._waiting.set(n_requests)

    def stepped(self, n_rows: int) -> None:
        self.batch_size.observe(n_rows)
        self.generated_tokens.inc(n_rows)

    def prefilled(self, n_tokens: int, n_reused: int) -> None:
        self.prompt_tokens.inc(n_tokens)
        self.reused_tokens.inc(n_reused)
        self.generated_tokens.inc()  # the first token comes of the prompt

    def _counter(self, name: str, told: str) -> prometheus.Counter:
        return prometheus.Counter(name, told, list(self._labels), registry=self._registry).labels(**self._labels)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...]) -> prometheus.Histogram:
        made = prometheus.Histogram(name, told, list(self._labels), buckets=buckets, registry=self._registry)
        return made.labels(**self._labels)
