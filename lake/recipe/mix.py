"""Domains and quotas: what a drop is made of, and how much of each is kept."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lake.recipe.section import Section, Share

OTHER = "other"  # the domain of what no rule knows
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
_KEYWORD = re.compile(r"[\w\s'’-]+")


def _weights(found: Any) -> Any:
    """A plain list of keywords weighs 1 each."""
    if isinstance(found, (list, tuple)):
        return dict.fromkeys((str(keyword) for keyword in found), 1.0)
    if not isinstance(found, Mapping):
        raise ValueError("a list of keywords, or a mapping from keyword to weight")
    return {str(keyword): weight for keyword, weight in found.items()}  # 1984 is a number in YAML


class Domain(Section):
    """What belongs to one domain. A source rule decides before keywords, keywords before examples."""

    sources: tuple[str, ...] = Field(
        default=(),
        description="glob patterns: with :// of the whole source uri, else of the end of its path, as in wiki/*.jsonl; "
        "* also matches /",
    )
    keywords: Annotated[dict[str, float], BeforeValidator(_weights)] = Field(
        default={}, description="words or phrases, a list or with weights; whole words, whatever their case"
    )
    min_matches: float = Field(default=3, gt=0, description="weighted keyword matches that a document needs")
    min_density: float = Field(default=1.0, ge=0, description="weighted keyword matches that it needs per 100 words")
    examples: tuple[str, ...] = Field(default=(), description="texts of this domain, seeds of the classifier")

    @field_validator("keywords")
    @classmethod
    def _searchable(cls, found: dict[str, float]) -> dict[str, float]:
        for keyword, weight in found.items():
            if not _KEYWORD.fullmatch(keyword) or not re.search(r"\w", keyword):
                raise ValueError(
                    f"keywords of letters, digits, spaces, hyphens and apostrophes; {keyword!r} has other characters, "
                    "which whole words do not have"
                )
            if not math.isfinite(weight) or weight == 0:
                raise ValueError(f"a weight other than 0 for {keyword!r}; a negative one speaks against the domain")
        return found

    @field_validator("sources", "examples")
    @classmethod
    def _not_blank(cls, found: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(str.strip, found)):
            raise ValueError("entries that are not blank")
        return found


class Mix(Section):
    """Which domains there are, and how many tokens of each are kept."""

    domains: dict[str, Domain] = Field(
        default={}, description=f"by name; of two that match alike the first one wins; the rest is {OTHER}"
    )
    seeds: tuple[Annotated[str, Field(pattern=r"^file:/.+\.jsonl$")], ...] = Field(
        default=(),
        description=f"file:/path.jsonl, a line each with text and domain; a classifier learns from them; {OTHER} is "
        "a domain, too",
    )
    min_confidence: Share = Field(default=0.6, description=f"of the classifier; a document below it is {OTHER}")
    quotas: dict[str, Share] = Field(
        default={}, description="shares of the kept tokens by domain; what is missing to 1 goes to all other domains"
    )
    tolerance: Share = Field(default=0.02, description="what a share may differ from its quota, in absolute points")
    max_tokens: int | None = Field(default=None, ge=1, description="tokens kept of one drop at most")
    min_kept: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="where a domain has too little for its quota, the others shrink with it, but not below this share "
        "of all tokens (or of max_tokens, if fewer); the scarcest domain then falls short. 1: never shrink",
    )
    value: Literal["tfidf", "random", "arrival"] = Field(
        default="tfidf",
        description="which documents of a domain come first: the most distinct ones against all history by TF-IDF, "
        "random ones (the same each time), or those that came first",
    )
    tokenizer: str = Field(
        default="words",
        pattern=r"^(words|file:/.+\.json)$",
        description="what a token is: words and punctuation marks, or file:/path/tokenizer.json",
    )
    max_reserve_tokens: int = Field(
        default=50_000_000,
        ge=0,
        description="of what quotas leave out, kept for later drops; what is beyond it is rejected",
    )

    @property
    def labels(self) -> tuple[str, ...]:
        """All domains, in the order of the recipe, `other` last: a domain's number is its place here."""
        return (*(name for name in self.domains if name != OTHER), OTHER)

    @field_validator("domains")
    @classmethod
    def _named(cls, found: dict[str, Domain]) -> dict[str, Domain]:
        for name, domain in found.items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"names of small letters, digits, - and _, unlike {name!r}")
            if name == OTHER and (domain.sources or domain.keywords):
                raise ValueError(f"no sources or keywords for {OTHER}, which is what no rule knows; only examples")
        return found

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._require_rules()
        self._require_quotas()
        return self

    def _require_rules(self) -> None:
        for name, domain in self.domains.items():
            if not (domain.sources or domain.keywords or domain.examples or self.seeds):
                raise ValueError(f"sources, keywords or examples for domain {name}, or seeds of the whole mix")
        taught = [name for name, domain in self.domains.items() if domain.examples]
        if len(taught) == 1 and not self.seeds:
            raise ValueError(
                f"examples of a second domain beside those of {taught[0]}, so that a classifier can tell them apart "
                f"({OTHER}: {{examples: […]}} will do)"
            )

    def _require_quotas(self) -> None:
        unknown = sorted(set(self.quotas) - set(self.labels))
        if unknown:
            raise ValueError(f"quotas of {', '.join(self.labels)}, not of {', '.join(unknown)}")
        total = math.fsum(self.quotas.values())
        if total > 1 + 1e-9:
            raise ValueError(f"quotas that sum to at most 1, not {total:g}")
        if total < 1 - 1e-9 and set(self.quotas) == set(self.labels):
            raise ValueError(f"quotas that sum to 1, not {total:g}, as every domain has one")
        if self.min_kept == 1 and self.quotas and self.max_tokens is None:
            raise ValueError("max_tokens, as min_kept of 1 keeps every document without it")
