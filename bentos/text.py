"""Text to tokens and back: the chat template, incremental decoding of UTF-8, and stop strings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from lake.errors import TidemillError

_INCOMPLETE = "\ufffd"  # what a tokenizer makes of the first bytes of a character
_BREAK = "\x00"


class ChatTemplateError(Exception):
    """The model's template refuses these messages. The text says why."""


class TextCodec:
    """A model folder's tokenizer and chat template, as transformers would apply them."""

    def __init__(self, folder: Path) -> None:
        config = _json(folder / "tokenizer_config.json")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # What the trainer cut or padded to is not for here.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._special = [
            token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special
        ]
        self._variables = {name: _content(value) for name, value in config.items() if name.endswith("_token")}
        source = folder / "chat_template.jinja"
        template = source.read_text() if source.exists() else config.get("chat_template")
        self._template = _environment().from_string(template) if isinstance(template, str) else None

    def encode(self, text: str) -> list[int]:
        """Tokens of a plain text, begun as the model was trained. Names of special tokens in it are taken as such."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of a conversation up to where the assistant answers. Raises ChatTemplateError.

        Special tokens spelled out inside a message become ordinary text, so that a user cannot speak as the system.
        """
        if self._template is None:
            raise ChatTemplateError("this model has no chat template; use /v1/completions")
        defused = [{**message, "content": self._defused(message["content"])} for message in messages]
        try:
            rendered = self._template.render(messages=defused, add_generation_prompt=True, **self._variables)
        except (TemplateError, SecurityError, TypeError, ValueError) as error:
            raise ChatTemplateError(str(error)) from error
        parts = rendered.split(_BREAK)
        return [token for part in parts for token in self._tokenizer.encode(part, add_special_tokens=False).ids]

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _defused(self, text: str) -> str:
        """Mark a break inside each special token's name; encoded in two parts, it is not recognised any more."""
        text = text.replace(_BREAK, "")
        for special in self._special:
            text = text.replace(special, f"{special[:1]}{_BREAK}{special[1:]}")
        return text


class Detokenizer:
    """Text of a growing token sequence, in pieces that never hold half a character."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._tokens: list[int] = []
        # Tokens before `_start` cannot change what follows; those before `_told` have been told.
        self._start = self._told = 0

    def push(self, token: int) -> str:
        """What this token adds to the text; empty while a character is incomplete."""
        self._tokens.append(token)
        text = self._untold()
        if text.endswith(_INCOMPLETE):
            return ""
        self._start, self._told = self._told, len(self._tokens)
        return text

    def finish(self) -> str:
        """What is left: a character that was never completed becomes U+FFFD."""
        text = self._untold()
        self._start = self._told = len(self._tokens)
        return text

    def _untold(self) -> str:
        before = self._codec.decode(self._tokens[self._start : self._told])
        return self._codec.decode(self._tokens[self._start :])[len(before) :]


class StopMatcher:
    """Ends a text before the first stop string, and holds back what may still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that is safe to tell, and whether a stop string has been met."""
        if not self._stops:
            return piece, False
        self._held += piece
        found = [index for stop in self._stops if (index := self._held.find(stop)) >= 0]
        if found:
            safe, self._held = self._held[: min(found)], ""
            return safe, True
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        safe, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return safe, False

    def finish(self) -> str:
        """What was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja2 as transformers sets it up for chat templates, which come with the model and so are not trusted."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _content(value: Any) -> Any:
    """A token in tokenizer_config.json is a string or an object that holds it."""
    return value.get("content") if isinstance(value, dict) else value


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise TidemillError(
            str(path), expected="a JSON file beside the model", got=str(error), remedy="export the model again"
        ) from error
    return loaded
