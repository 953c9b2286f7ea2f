"""HTML of a person's own Markdown, without what runs code or is fetched when a page is opened."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bleach.html5lib_shim import Filter
from bleach.sanitizer import Cleaner

_TAGS = (
    "a", "abbr", "b", "blockquote", "br", "caption", "center", "cite", "code", "col", "colgroup", "dd", "del",
    "details", "dfn", "div", "dl", "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr",
    "i", "img", "ins", "kbd", "li", "mark", "ol", "p", "pre", "q", "s", "samp", "section", "small", "span",
    "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "u", "ul", "var",
    "wbr",
)  # fmt: skip
_FORMULAS = (
    "math", "menclose", "mfenced", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded", "mphantom",
    "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd",
    "mtext", "mtr", "munder", "munderover", "none", "semantics",
)  # fmt: skip
_ATTRIBUTES = (
    "align", "alt", "class", "colspan", "dir", "height", "id", "lang", "open", "rowspan", "start", "title",
    "valign", "width",
)  # fmt: skip
_LINK = re.compile(r"(?:https?:|mailto:|#|[^:]*$)", re.IGNORECASE)


def clean(text: str) -> str:
    """Keep text, tables, formulas, links and embedded pictures; a picture that would be fetched leaves a note.

    Example:
        >>> clean('<a href="javascript:x()">here</a> <b onclick="x()">bold</b>')
        '<a>here</a> <b>bold</b>'
        >>> clean('<img src="https://example.org/a.png" alt="a cat">')
        '[picture left out: a cat]'
    """
    return str(_CLEANER.clean(text))


def _allowed(tag: str, name: str, value: str) -> bool:
    if tag in _FORMULAS:
        return not name.startswith("on") and name not in ("href", "src", "style")
    if name == "href":
        return tag == "a" and _LINK.match(value.strip()) is not None
    if name == "src":
        return tag == "img" and value.startswith("data:image/")
    return name in _ATTRIBUTES


class _Pictures(Filter):
    """Puts a note in place of a picture that has lost its address."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for token in super().__iter__():
            if token.get("name") == "img" and (None, "src") not in token["data"]:
                name = token["data"].get((None, "alt")) or "no description"
                yield {"type": "Characters", "data": f"[picture left out: {name}]"}
            else:
                yield token


_CLEANER = Cleaner(
    tags=[*_TAGS, *_FORMULAS],
    attributes=_allowed,
    protocols=["http", "https", "mailto", "data"],
    strip=True,
    filters=[_Pictures],
)
