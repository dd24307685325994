"""The bounds of the data gate, and what follows when one is not kept."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field, field_validator

from lake.recipe.section import Section, Share

Severity = Literal["warn", "fail"]

# Every expectation by the name that `severity` calls it, by suite, and what follows by default.
SEVERITY: Mapping[str, Mapping[str, Severity]] = MappingProxyType(
    {
        "raw": {
            "metrics_columns": "fail",
            "metrics_types": "fail",
            "input_columns": "fail",
            "unreadable_rate": "warn",
            "reason_rate": "fail",
            "short_rate": "warn",
            "foreign_rate": "warn",
            "reject_rate": "fail",
        },
        "clean": {
            "documents": "fail",
            "complete_metrics": "fail",
            "place_ids": "fail",
            "given_ids": "warn",
            "characters": "fail",
            "median_words": "fail",
            "p95_words": "fail",
            "median_tokens": "warn",
            "p95_tokens": "warn",
            "duplicate_rate": "fail",
            "leak_rate": "fail",
            "letters": "fail",
            "repetition": "fail",
            "splits": "fail",
            "languages": "fail",
            "domain_share": "warn",
            "quotas": "warn",
        },
        "drift": {
            "length_drift": "warn",
            "language_drift": "warn",
            "domain_drift": "warn",
            "reject_rate_drift": "warn",
            "new_columns": "warn",
            "missing_columns": "warn",
            "column_types": "warn",
        },
    }
)
EXPECTATIONS: Mapping[str, Severity] = MappingProxyType(
    {name: severity for suite in SEVERITY.values() for name, severity in suite.items()}
)


class CheckRules(Section):
    """Great Expectations' bounds on the prepared drop."""

    min_documents: int = Field(default=20, ge=1, description="kept")
    max_duplicate_rate: Share = Field(default=0.9, description="share of what is read")
    max_reject_rate: Share = Field(default=0.6, description="share rejected for other reasons than duplication")
    max_pii_leak_rate: Share = Field(default=0.0, description="share of kept documents with personal data left in")
    min_median_words: int = Field(default=20, ge=0, description="of kept documents")
    max_p95_words: int = Field(default=5_000, ge=1, description="of kept documents")
    min_median_tokens: int = Field(default=20, ge=0, description="of kept documents")
    max_p95_tokens: int = Field(default=10_000, ge=1, description="of kept documents")
    max_unreadable_rate: Share = Field(default=0.5, description="share of what is read that holds no readable text")
    max_short_rate: Share = Field(default=0.5, description="share of readable documents that are empty or too short")
    max_foreign_rate: Share = Field(
        default=0.5, description="share of documents, readable and long enough, in none of prepare.languages"
    )
    max_reason_rate: dict[str, Share] = Field(
        default={}, description="share of what is read that may be rejected for a reason, by its code"
    )
    min_language_share: Share = Field(default=0.9, description="share of kept documents in prepare.languages")
    max_domain_share: Share = Field(default=1.0, description="share of kept tokens that one domain may have")
    required_columns: tuple[str, ...] = Field(
        default=(), description="columns or JSON fields of the input: name, or name:type as 'tidemill data show' has it"
    )
    max_psi: float = Field(
        default=0.25, gt=0, description="population stability index of lengths, languages and domains against history"
    )
    max_reject_rate_change: Share = Field(default=0.2, description="points, against history")
    min_drift_documents: int = Field(
        default=200, ge=20, description="kept, here and in history; with fewer: not judged"
    )
    severity: dict[str, Severity] = Field(
        default={}, description="warn or fail by expectation; a warning is told and lets the drop pass"
    )

    @field_validator("severity")
    @classmethod
    def _known(cls, severity: dict[str, Severity]) -> dict[str, Severity]:
        if unknown := sorted(set(severity) - set(EXPECTATIONS)):
            raise ValueError(f"names among {', '.join(EXPECTATIONS)}, not {', '.join(unknown)}")
        return severity

    def severity_of(self, expectation: str) -> Severity:
        """What follows when an expectation of this name is not met. Raises KeyError for a name there is not."""
        return self.severity.get(expectation, EXPECTATIONS[expectation])
