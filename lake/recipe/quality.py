"""Published quality rules. Each set is off until the recipe names it: `gopher: true`, or a section that overrides single
constants. The names of the constants are those of the reference implementations in datatrove."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from lake.recipe.section import Section, Share

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


class Gopher(Section):
    """Quality rules of Gopher (Rae et al. 2021, section A.1.1)."""

    min_doc_words: int = Field(default=50, ge=0, description="words that are not symbols")
    max_doc_words: int = Field(default=100_000, ge=1)
    min_avg_word_length: float = Field(default=3, ge=0, description="characters")
    max_avg_word_length: float = Field(default=10, gt=0)
    max_symbol_word_ratio: float = Field(default=0.1, ge=0, description="of # to words, and of … or ... to words")
    max_bullet_lines_ratio: Share = 0.9
    max_ellipsis_lines_ratio: Share = 0.3
    min_alpha_words_ratio: Share = Field(default=0.8, description="share of words with a letter")
    min_stop_words: int = Field(default=2, ge=0, description="different ones")
    stop_words: tuple[str, ...] = STOP_WORDS


class GopherRepetition(Section):
    """Repetition rules of Gopher (Rae et al. 2021, table A1). Shares of characters are of the whole text."""

    dup_line_frac: Share = 0.3
    dup_para_frac: Share = 0.3
    dup_line_char_frac: Share = 0.2
    dup_para_char_frac: Share = 0.2
    top_n_grams: tuple[tuple[Annotated[int, Field(ge=1, le=4)], Share], ...] = Field(
        default=((2, 0.20), (3, 0.18), (4, 0.16)), description="[n, largest share of the most frequent n-gram]"
    )
    dup_n_grams: tuple[tuple[Annotated[int, Field(ge=5, le=10)], Share], ...] = Field(
        default=((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)),
        description="[n, largest share in n-grams that have stood before]",
    )


class C4(Section):
    """Rules of C4 (Raffel et al. 2020, section 2.2, and its published code): lines first, then the page."""

    filter_no_terminal_punct: bool = Field(default=True, description="remove lines that end in no . ? ! or quote")
    min_words_per_line: int = Field(default=3, ge=0, description="3 in the paper, 5 in its code")
    max_word_length: int = Field(default=1_000, ge=1, description="lines with a longer word are removed; characters")
    remove_citations: bool = Field(default=True, description="[1], [edit] and [citation needed]")
    filter_javascript: bool = Field(default=True, description="remove lines that speak of it")
    filter_policy: bool = Field(default=True, description="remove lines about cookies and terms of use")
    filter_lorem_ipsum: bool = Field(default=True, description="reject the page")
    filter_curly_bracket: bool = Field(default=True, description="reject the page")
    min_num_sentences: int = Field(default=5, ge=0, description="left in the page; 5 in the paper, 3 in its code")


class FineWeb(Section):
    """Rules that FineWeb adds (Penedo et al. 2024, section 3.6), with the constants of its released pipeline."""

    line_punct_thr: Share = Field(default=0.12, description="least share of lines that end a sentence")
    short_line_thr: Share = Field(default=0.67, description="largest share of short lines")
    short_line_length: int = Field(default=30, ge=0, description="characters")
    char_duplicates_ratio: Share = Field(
        default=0.01, description="largest share of characters in repeated lines; 0.1 in the paper, 0.01 in its code"
    )
    new_line_ratio: float = Field(default=0.3, ge=0, description="most line ends a word")


class Boilerplate(Section):
    """Lines that stand in many documents of a drop (menus, footers, licences) are removed from all of them."""

    min_documents: int = Field(default=10, ge=2, description="that a line must stand in")
    min_share: Share = Field(default=0.01, description="of the drop's documents that a line must stand in")
    min_line_characters: int = Field(default=10, ge=1, description="shorter lines are never boilerplate")


class Paragraphs(Section):
    """Paragraphs that have stood before in the drop are removed; the first one stays."""

    min_characters: int = Field(default=100, ge=1, description="shorter paragraphs may repeat")


class Toxicity(Section):
    """Documents with too many words of a list are rejected. There is no list but the recipe's."""

    words: tuple[str, ...] = Field(default=(), description="words or phrases, compared word by word without case")
    file: str | None = Field(default=None, pattern=r"^file:/.+$", description="file:/path of more, one a line")
    max_count: int = Field(default=0, ge=0, description="occurrences that a document may have")
    max_share: Share = Field(default=1.0, description="share of a document's words that they may be")

    @model_validator(mode="after")
    def _has_words(self) -> Self:
        if not self.words and self.file is None:
            raise ValueError("words or a file of them")
        return self


S = TypeVar("S", bound=Section)


def _switch(value: Any) -> Any:
    return {} if value is True else None if value is False else value


# `true` is the section with its published constants, `false` is none.
_Switched = Annotated[S | None, BeforeValidator(_switch)]


class Quality(Section):
    """Which published rules a document must pass; none by default."""

    gopher: _Switched[Gopher] = Field(default=None, description="true, or constants of its quality rules")
    gopher_repetition: _Switched[GopherRepetition] = Field(default=None, description="true, or constants")
    c4: _Switched[C4] = Field(default=None, description="true, or constants; removes lines")
    fineweb: _Switched[FineWeb] = Field(default=None, description="true, or constants")
    boilerplate: _Switched[Boilerplate] = Field(default=None, description="lines that many documents share")
    paragraphs: _Switched[Paragraphs] = Field(default=None, description="paragraphs that repeat in the drop")
    toxicity: Toxicity | None = Field(default=None, description="a list of words, and how many are too many")
