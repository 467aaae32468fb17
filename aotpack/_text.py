"""Text that others wrote, for a terminal, a page or a log."""

from __future__ import annotations

__all__ = ["BIDI_CONTROLS", "clipped", "html_text", "json_printable", "printable", "shortened"]

#: They change the order in which a terminal or an editor shows what stands around them (UAX 9).
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""`text` with all that a terminal would obey, or that hides, written as ``\x1b``; lines stay lines."""
    if text.isprintable():
        return text
    strange = {ord(each): each.encode("unicode_escape").decode() for each in _strange(text)}
    return text.translate(strange)


def json_printable(text: str) -> str:
    r"""A JSON document with all that a terminal would obey, or that hides, as JSON's own ``\u001b``.

    Every reader of JSON finds the same in it: outside of its strings JSON has no such characters.
    """
    if text.isprintable():
        return text
    strange = {ord(each): _json_escape(each) for each in _strange(text)}
    return text.translate(strange)


def html_text(text: str) -> str:
    """`text` for the content or an attribute of an HTML element, with nothing hidden in it."""
    import html

    return html.escape(printable(text))


def shortened(name: str) -> str:
    """`name` in quotes, as much of it as an error has room for."""
    return repr(name) if len(name) <= 80 else f"{name[:80]!r}..."


def clipped(text: str, longest: int = 200) -> str:
    """`text`, as much of it as a sentence has room for."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def _strange(text: str) -> list[str]:
    return [each for each in set(text) if not each.isprintable() and each != "\n"]


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
