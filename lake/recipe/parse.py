"""From YAML to a recipe or another section, with errors that name the field, the value and what is allowed."""

from __future__ import annotations

import reprlib
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lake.errors import RecipeError
from lake.recipe.recipe import Recipe
from lake.recipe.section import Section

# A few lines of YAML can unfold into so many values that a whole repr would not end.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 4, 100


S = TypeVar("S", bound=Section)


def parse_recipe(text: str, where: str) -> Recipe:
    """Parse YAML into a recipe. Raises RecipeError that names the field, the value and what is allowed."""
    return parsed(Recipe, text, where, _remedy(where))


def parsed(kind: type[S], text: str, where: str, remedy: str) -> S:
    """Parse YAML into a section. Raises RecipeError that names the field, the value and what is allowed."""
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: dates that do not exist
        raise RecipeError(where, expected="YAML", got=" ".join(str(error).split()), remedy=remedy) from error
    try:
        return kind.model_validate(loaded)
    except ValidationError as error:
        raise RecipeError(
            f"{where}, field {'; '.join(_place(e['loc']) for e in error.errors())}",
            expected="; ".join(_allowed(kind, e) for e in error.errors()),
            got="; ".join(_SHORT.repr(e.get("input"))[:200] for e in error.errors()),
            remedy=remedy,
        ) from error


def _remedy(where: str) -> str:
    return "correct the recipe" + (" and put it into the bucket again" if where.startswith("s3://") else "")


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(map(str, loc)) or "(whole file)"


def _allowed(kind: type[Section], error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return f"one of {', '.join(_fields_at(kind, error['loc'][:-1]))}"
    if error["type"] == "missing":
        return f"a value for {error['loc'][-1]}"
    return error["msg"].removeprefix("Value error, ")


def _fields_at(top: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    """The names that a section may hold. `loc` leads to it from the top; numbers in it are places in a list."""
    section: type[BaseModel] = top
    for name in (part for part in loc if isinstance(part, str)):
        if name in section.model_fields:  # a key of a mapping is no field
            found = section.model_fields[name].annotation
            kinds = (*get_args(found), found)
            section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), section)
    return list(section.model_fields)
