"""How objects are read: which columns of structured formats are the text, and the limits of what is unpacked."""

from __future__ import annotations

from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, Field

from lake.recipe.section import Section


def template_fields(template: str) -> list[tuple[str, str | None]]:
    """`(literal, column)` in order; the last column may be None. Raises ValueError for what is no plain template."""
    parts = []
    for literal, column, spec, conversion in Formatter().parse(template):
        if column == "" or spec or conversion:
            raise ValueError("a template with {column} only, without format or conversion")
        parts.append((literal, column))
    return parts


def _template_or_columns(text: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if isinstance(text, str) and not any(column for _, column in template_fields(text)):
        raise ValueError("a template with at least one {column}, or a list of columns; text_field names a single one")
    if isinstance(text, tuple) and not text:
        raise ValueError("at least one column")
    return text


class Formats(Section):
    """Columns of structured formats, and the limits of what is unpacked. What breaks a limit is a dead letter."""

    text: Annotated[str | tuple[str, ...] | None, AfterValidator(_template_or_columns)] = Field(
        default=None,
        description="columns joined by a blank line, or a template such as '{title}\\n\\n{body}'; dots lead into nested "
        "objects; missing ones are left out; none means the column text_field",
    )
    id: str | None = Field(default="id", description="column that holds the document's id; null to take none")
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="of .csv and .tsv; null to see")
    quote: str = Field(default='"', min_length=1, max_length=1, description="quote character of .csv and .tsv")
    columns: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="names of the columns of .csv and .tsv files without a header row"
    )
    xml_record: str | None = Field(
        default=None, description="XML element that is one record; its attributes and children are the columns"
    )
    detect_charset: bool = Field(
        default=True, description="read text in an encoding that nobody named when there is little doubt about it"
    )
    max_entries: int = Field(default=10_000, ge=1, description="files in one archive")
    max_ratio: float = Field(default=200, ge=1, description="unpacked size of an archive's file over its packed size")
    max_depth: int = Field(default=3, ge=1, description="archives and compressions within each other")
    max_file_bytes: int = Field(
        default=200_000_000, ge=1, description="of a .pdf, .docx or .epub, which is needed whole to be read"
    )
    max_page_bytes: int = Field(
        default=10_000_000, ge=1, description="of an HTML page, a chapter or a record of an archive of the web"
    )
    max_page_elements: int = Field(
        default=5_000, ge=1, description="HTML elements up to which a page's main text is looked for; beyond, all of it"
    )
    max_pages: int = Field(default=10_000, ge=1, description="pages of a .pdf")
