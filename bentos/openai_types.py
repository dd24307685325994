"""Requests of OpenAI's API as far as they are supported, and its error shape. What is not supported is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bentos.sampling import Sampling
from bentos.serving_config import ServingSettings

# Without a bound a small model may ramble to the end of its context, minutes on a processor.
DEFAULT_CHAT_TOKENS = 512
DEFAULT_COMPLETION_TOKENS = 16  # as OpenAI's own

# Names of union members in the path of a validation error.
_FORMS = ("str", "int", "none", "bool")
_Penalty = Annotated[float, Field(ge=-2, le=2)]


class ApiError(Exception):
    """An answer other than 200, in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers or {}

    def body(self) -> dict[str, Any]:
        kind = {429: "rate_limit_error"}.get(self.status, "server_error" if self.status >= 500 else None)
        return {
            "error": {
                "message": self.message,
                "type": kind or "invalid_request_error",
                "param": self.param,
                "code": self.code,
            }
        }


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]


class TextPart(BaseModel):
    """One part of a message that is given as a list. Images and sound are refused by `type`."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    def for_template(self) -> dict[str, str]:
        """Role and content as chat templates know them; `developer` is OpenAI's newer name of `system`."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text}


class Generate(BaseModel):
    """What both kinds of request share."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Taken and without effect: they concern accounting, not the answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Known, not supported: some clients send them as null.
    logit_bias: None = None

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > 4:
            raise ValueError("at most 4 stop strings")
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, serving: ServingSettings) -> Sampling:
        """As it was asked for; what is left open is as this replica has it, else as OpenAI has it."""
        return Sampling(
            temperature=_first(self.temperature, serving.temperature, 1.0),
            top_p=_first(self.top_p, serving.top_p, 1.0),
            seed=None if self.seed is None else self.seed % 2**64,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
        )


class ChatRequest(Generate):
    """`POST /v1/chat/completions`"""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: ResponseFormat | None = None
    logprobs: Literal[False] | None = None
    # Known, not supported: some clients send them as null.
    tools: None = None
    tool_choice: None = None
    parallel_tool_calls: None = None
    functions: None = None
    function_call: None = None
    top_logprobs: None = None
    audio: None = None
    modalities: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None

    @property
    def asked_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def for_template(self, system_prompt: str) -> list[dict[str, str]]:
        """The messages, after `system_prompt` where there is one and they bring none of their own."""
        messages = [message.for_template() for message in self.messages]
        if system_prompt and all(message["role"] != "system" for message in messages):
            return [{"role": "system", "content": system_prompt}, *messages]
        return messages

    @property
    def logged_prompt(self) -> str:
        """The last thing a user said: what monitoring compares."""
        said = [message.text for message in self.messages if message.role == "user"]
        return said[-1] if said else self.messages[-1].text


class CompletionRequest(Generate):
    """`POST /v1/completions`, for one prompt: a text or its tokens."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)] | Annotated[list[int], Field(min_length=1)]
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None
    logprobs: None = None

    @property
    def asked_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def text(self) -> str | None:
        """The prompt, or None when it came as tokens."""
        if isinstance(self.prompt, str):
            return self.prompt
        return self.prompt[0] if isinstance(self.prompt[0], str) else None

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for token in self.prompt if isinstance(token, int))


def _first(*values: float | None) -> float:
    """The first that is given."""
    return next(value for value in values if value is not None)


def explain(error: ValidationError) -> ApiError:
    """What is wrong with the first parameter that is, as OpenAI's API says it."""
    errors = error.errors()
    # Where several forms are allowed, each form has its complaint; the one that came furthest is about what was meant.
    first = max((e for e in errors if e["loc"][:1] == errors[0]["loc"][:1]), key=lambda e: len(e["loc"]))
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}.", code="invalid_json"
        )
    place = [str(part) for part in first["loc"] if str(part).replace("_", "").isalnum() and part not in _FORMS]
    param = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)
    if first["type"] == "missing":
        return ApiError(400, f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    if first["type"] == "none_required":
        return ApiError(400, f"'{param}' is not supported.", code="unsupported_parameter", param=param)
    got = repr(first.get("input"))
    got = got if len(got) <= 80 else f"{got[:80]}…"
    message = f"Invalid '{param}': {first['msg'].removeprefix('Value error, ')}, got {got}."
    if param == "n":
        message = f"Invalid 'n': there is one answer to a request, got {got}; send the request again for another."
    return ApiError(400, message, code="invalid_value", param=param)
