"""All the text of a page or chapter, a block a line, in time that grows with its length alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# What HTML renders within a line (HTML standard, 15.3: display is not block), and what it does not render at all.
_INLINE = frozenset(
    {
        "a",
        "abbr",
        "acronym",
        "b",
        "bdi",
        "bdo",
        "big",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "img",
        "ins",
    }
    | {"kbd", "label", "mark", "q", "ruby", "rb", "rt", "s", "samp", "small", "span", "strike", "strong", "sub", "sup"}
    | {"time", "tt", "u", "var", "wbr"}
)
_UNSEEN = frozenset(
    {"script", "style", "noscript", "template", "head", "title", "svg", "math", "iframe", "select", "button"}
)
_PARAGRAPHS = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre", "section", "article"}
    | {"div", "figure"}
)


def html_text(page: str) -> str:
    """Text of HTML as browsers would repair it; empty when there is nothing to repair."""
    from lxml import etree, html

    try:
        parser = html.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False)
        root = html.document_fromstring(page.encode("utf-8", "replace"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, AssertionError):
        return ""
    return tree_text(root)


def tree_text(root: Any) -> str:
    """Text of an lxml tree of HTML or XHTML, without scripts and the like; a blank line between paragraphs."""
    lines = "".join(_pieces(root)).split("\n")
    squeezed = "\n".join(" ".join(line.split()) for line in lines)
    while "\n\n\n" in squeezed:
        squeezed = squeezed.replace("\n\n\n", "\n\n")
    return squeezed.strip()


def _pieces(root: Any) -> Iterator[str]:
    """In document order, without recursion: pages nest deeper than Python's stack."""
    from lxml import etree

    unseen = 0
    for event, element in etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        starts = event == "start"
        if event in ("start", "end"):
            name = element.tag.rsplit("}", 1)[-1].lower() if isinstance(element.tag, str) else ""
            if name in _UNSEEN:
                unseen += 1 if starts else -1
            if not unseen:
                yield "\n\n" if name in _PARAGRAPHS else "" if name in _INLINE else "\n"
            if starts and element.text and not unseen:
                yield " ".join(element.text.split("\n"))
        if not starts and element is not root and element.tail and not unseen:
            yield " ".join(element.tail.split("\n"))
