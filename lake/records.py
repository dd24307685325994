"""What the stages hand to each other: one frozen type each, every field required, JSON in and out.

`Drop → Dataset → CheckReport → Checkpoint → EvalReport → ExportedModel → Bento → RolloutDecision`, and on the way
back `PredictionLog → DriftVerdict`. Keys are keys inside the bucket; a `*_prefix` ends with a slash.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
RolloutStage = Literal["pending", "shadow", "ab", "canary", "full", "rolled_back"]
RolloutAction = Literal["start", "hold", "promote", "roll_back", "end"]


class Record(BaseModel):
    """Base of all hand-overs: immutable, no unknown fields, timestamps in UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ObjectRef(Record):
    """One version of one object, as the listing showed it. `bucket` is a path where the store is a local folder."""

    bucket: str
    key: str
    etag: str
    size_bytes: int
    last_modified: datetime

    @property
    def uri(self) -> str:
        is_local = not self.bucket or self.bucket.startswith("/")  # the name of no bucket begins so
        return f"file://{self.bucket}/{self.key}" if is_local else f"s3://{self.bucket}/{self.key}"


class Drop(Record):
    """A set of new objects that arrived together. `drop_id` is derived from the set, so the same set is one drop."""

    drop_id: str
    model: str
    objects: tuple[ObjectRef, ...]
    closed_at: datetime


class Dataset(Record):
    """A prepared drop: Parquet shards by split, signatures and rejects under `prefix`.

    `rejected` counts dead letters by reason (duplicates are among them: `exact_duplicate`, `near_duplicate`);
    `n_read == n_kept + sum(rejected.values())`. `n_documents`, `n_characters` and `n_tokens` are of kept documents by
    split, `domains` kept tokens by domain, `languages` kept documents by language, `redacted` spans by kind. `columns`
    tells of the input: how many records had a field, by `name:type`. `n_reserved` documents were left out by quotas and
    wait for a later drop; `reused_ids` are the datasets whose left-out ones took part in this one. `mix` tells what
    became of each domain's quota.
    """

    dataset_id: str
    model: str
    drop_id: str
    prefix: str
    history_ids: tuple[str, ...]
    n_objects: int
    n_read: int
    n_kept: int
    rejected: dict[str, int]
    redacted: dict[str, int]
    n_documents: dict[str, int]
    n_characters: dict[str, int]
    n_tokens: dict[str, int] = {}
    domains: dict[str, int] = {}
    languages: dict[str, int] = {}
    columns: dict[str, int] = {}
    n_reserved: int = 0
    reused_ids: tuple[str, ...] = ()
    mix: tuple[dict[str, Any], ...] = ()


class SignatureIndex(Record):
    """The signatures of several datasets, or of several such indexes, in few files. `of` names them in order."""

    index_id: str
    model: str
    prefix: str
    of: tuple[str, ...]
    n_documents: int


class CheckReport(Record):
    """Outcome of the data gate. `failures` and `warnings` say expectation, expected and observed in words.

    `suites` counts expectations by suite and outcome (`met`, `warned`, `failed`); `skipped` says what was not judged.
    """

    check_id: str
    dataset_id: str
    passed: bool
    n_expectations: int
    failures: tuple[str, ...]
    data_docs_key: str
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    suites: dict[str, dict[str, int]] = {}


class Checkpoint(Record):
    """A trained adapter. `dataset_ids` are those trained on directly; `parent_version` is what it started from."""

    checkpoint_id: str
    model: str
    version: str
    dataset_ids: tuple[str, ...]
    parent_version: str | None
    base_model: str
    adapter_prefix: str
    n_steps: int
    n_tokens: int
    train_loss: float
    validation_loss: float
    device: str
    precision: str
    duration_s: float
    resumed_from_step: int
    loss_curve_key: str


class TaskScore(Record):
    """Accuracy on the fixed task set, in [0, 1]."""

    base: float
    champion: float | None
    challenger: float


class PerplexityScore(Record):
    """exp(mean negative log-likelihood per token) on one held-out set; lower is better."""

    held_out: str
    n_tokens: int
    base: float
    champion: float | None
    challenger: float


class EvalReport(Record):
    """Challenger against champion. `reasons` explains every rule of the gate, passed or not."""

    eval_id: str
    model: str
    version: str
    champion_version: str | None
    passed: bool
    reasons: tuple[str, ...]
    perplexity: tuple[PerplexityScore, ...]
    task: TaskScore
    report_key: str


class ExportedModel(Record):
    """An ONNX model with KV cache, checked against torch.

    `parity_max_logit_diff` and `parity_top1` compare fp32 ONNX with torch; `quantization_loss` is the quantized
    model's perplexity over the fp32 one's, minus 1. `variant` is the one that passed and goes on.
    """

    export_id: str
    model: str
    version: str
    variant: Literal["fp32", "int8"]
    onnx_prefix: str
    size_bytes: int
    parity_max_logit_diff: float
    parity_top1: float
    perplexity_fp32: float
    perplexity_variant: float
    quantization_loss: float


class Bento(Record):
    """A BentoML bento in the local store, its labels carrying the lineage ids."""

    bento_id: str
    tag: str
    model_tag: str
    model: str
    version: str
    export_id: str
    labels: dict[str, str]
    archive_key: str


class ClusterStats(Record):
    """What the gateway counted for one version within one rollout stage. Latency is upstream request time."""

    n_requests: int
    n_errors: int
    latency_mean_ms: float
    latency_p95_ms: float


CheckVerdict = Literal["no_data", "too_little", "undecided", "fine", "worse"]


class CheckResult(Record):
    """One check as it stands. `effect` is how much worse the challenger is, in the unit of `margin` (points or a factor).

    `lower` and `upper` hold the effect at every look of the whole rollout but for a chance of `alpha` each
    (a confidence sequence); `p_value` is the anytime-valid one of "no worse than the margin". None: nothing to tell yet.
    `champion` and `challenger` are the estimates in the metric's own unit.
    """

    metric: str
    severity: Literal["fail", "warn"]
    verdict: CheckVerdict
    n_champion: int
    n_challenger: int
    champion: float | None
    challenger: float | None
    effect: float | None
    lower: float | None
    upper: float | None
    margin: float
    alpha: float
    p_value: float
    reason: str


class SplitResult(Record):
    """Whether the traffic was split as planned (sample-ratio mismatch). `broken`: no verdict rests on it."""

    share: float
    n_champion: int
    n_challenger: int
    p_value: float
    broken: bool


class RolloutLook(Record):
    """One look at a rollout, kept for its plots: the step, the time within it, every check, both versions' counts."""

    rollout_id: str
    step_index: int
    stage: str
    share: float
    elapsed_s: float
    looked_at: datetime
    champion_stats: ClusterStats
    challenger_stats: ClusterStats
    checks: tuple[CheckResult, ...]
    split: SplitResult | None


class RolloutDecision(Record):
    """One verdict of the rollout controller, with the evidence that it rests on."""

    rollout_id: str
    model: str
    challenger: str
    champion: str | None
    action: RolloutAction
    from_stage: str
    to_stage: str
    reason: str
    champion_stats: ClusterStats
    challenger_stats: ClusterStats
    decided_at: datetime
    checks: tuple[CheckResult, ...] = ()
    split: SplitResult | None = None


class PredictionLog(Record):
    """One answered request, redacted, as it is written to `logs/<model>/dt=…/`.

    `user` is a keyed hash of whom the request named, empty when it named nobody. `pinned`: it asked for this very version,
    so no split gave it there. Logs of earlier versions tell neither.
    """

    request_id: str
    model: str
    version: str
    at: datetime
    prompt: str
    response: str
    n_prompt_tokens: int
    n_response_tokens: int
    latency_ms: float
    status: int
    shadow: bool
    user: str = ""
    pinned: bool = False


class DriftVerdict(Record):
    """Current window against the reference window. `confirmed` needs consecutive drifted windows."""

    drift_id: str
    model: str
    version: str
    method: str
    statistic: float
    p_value: float
    n_reference: int
    n_current: int
    drifted: bool
    confirmed: bool
    report_key: str
    decided_at: datetime
