"""One version of one model, ready to answer: opened from its files, closed without losing what it has logged."""

from __future__ import annotations

import ctypes
import logging
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bentos.decoder import GRAPH, Decoder
from bentos.engine import Engine
from bentos.exchange import Exchange
from bentos.openai_types import ApiError
from bentos.prediction_log import PredictionLogger
from bentos.serving_config import ServingConfig, ServingSettings, read_facts
from bentos.serving_metrics import ServingMetrics
from bentos.text import ChatTemplateError, TextCodec
from bentos.users import user_key
from lake.bucket import Bucket, BucketAddress
from lake.errors import TidemillError
from lake.settings import Settings

log = logging.getLogger(__name__)

# Within what the supervisor leaves after the drain.
_LAST_FLUSH_S = 8.0


@dataclass
class Replica:
    """One version of one model, ready to answer, as `serving` has it where a request leaves something open.

    With an error rate, which is for drills, that share of requests fails.
    """

    config: ServingConfig
    engine: Engine
    metrics: ServingMetrics
    logger: PredictionLogger
    vocabulary: int
    serving: ServingSettings = field(default_factory=ServingSettings)
    draw: random.Random = field(default_factory=random.Random)

    def check_model(self, name: str) -> None:
        if name not in (self.config.model, self.config.tag):
            raise ApiError(
                404,
                f"The model '{name}' is not served here; this is '{self.config.model}' ({self.config.version}).",
                code="model_not_found",
                param="model",
            )

    def maybe_fail(self) -> None:
        if self.serving.inject_error_rate and self.draw.random() < self.serving.inject_error_rate:
            raise ApiError(500, "This failure was injected for a drill.", code="injected_error")

    def finish(self, exchange: Exchange, status: int) -> int:
        """Count and log what became of a request; returns the status."""
        self.metrics.answered(status)
        if exchange.first_token_s is not None:
            self.metrics.first_token_s.observe(exchange.first_token_s)
        self.metrics.waiting(self.engine.n_waiting)
        self.logger.record(exchange.finished(status))
        return status

    def close(self) -> None:
        """End what still runs, and write the rest of the log."""
        self.engine.close()
        self.logger.close(_LAST_FLUSH_S)


def open_replica(folder: Path, config: ServingConfig, serving: ServingSettings, settings: Settings) -> Replica:
    """Load the model in `folder` and start its threads. The bucket is opened when there is something to log.

    Raises TidemillError when the model's chat template does not take the system prompt that it is to serve with.
    """
    if serving.variant:
        config = config.model_copy(update={"version": serving.variant})
    facts = read_facts(folder)
    codec = TextCodec(folder)
    _require_system_prompt(codec, config, serving.system_prompt)
    metrics = ServingMetrics(config.model, config.version)
    decoder = Decoder(
        folder / GRAPH,
        n_slots=serving.slots,
        context_length=facts.context_length,
        n_threads=serving.n_threads,
        spin=serving.spin,
    )
    # Before readiness: a graph that cannot run is found here, and no client waits for what only the first run does.
    decoder.prefill(0, np.zeros(2, dtype=np.int64), 0)
    decoder.step(np.zeros(1, dtype=np.int64), np.full(1, 2))
    engine = Engine(
        decoder,
        codec,
        end_tokens=facts.eos_token_ids,
        max_waiting=serving.queue,
        observer=metrics,
    )
    logger = PredictionLogger(
        lambda: Bucket(BucketAddress.of(settings)),
        model=config.model,
        version=config.version,
        share=config.log_share,
        user_key=user_key(settings),
        flush_interval_s=serving.log_flush_s,
        on_written=metrics.logged_rows.inc,
        on_dropped=metrics.dropped_rows.inc,
    )
    _trim_memory()
    if serving.inject_error_rate:
        log.warning(
            "%s FAILS %.0f%% OF ITS REQUESTS ON PURPOSE: TIDEMILL_INJECT_ERROR_RATE=%g",
            config.tag,
            100 * serving.inject_error_rate,
            serving.inject_error_rate,
        )
    log.info("%s on %s, %d threads, %d rows", config.tag, decoder.provider, serving.n_threads, serving.slots)
    return Replica(config, engine, metrics, logger, decoder.vocabulary, serving)


def _require_system_prompt(codec: TextCodec, config: ServingConfig, system_prompt: str) -> None:
    """Else every chat would be refused."""
    if not system_prompt:
        return
    try:
        codec.encode_chat([{"role": "system", "content": system_prompt}, {"role": "user", "content": "?"}])
    except ChatTemplateError as error:
        raise TidemillError(
            f"system prompt of {config.tag}",
            expected="a chat template that takes one",
            got=str(error),
            remedy="unset TIDEMILL_SYSTEM_PROMPT; such a model needs its instructions in the user's message",
        ) from error


def _trim_memory() -> None:
    """Give back what loading has left free, 26 MB here: the tokenizer's JSON above all. glibc alone can do that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
