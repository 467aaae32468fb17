"""Vendors' error messages, as one sentence that somebody can read.

Some list every node of a model, repeat a message for each of them, or are a stack of source positions. The
whole message stays with the exception, in the log and in ``--json``.
"""

from __future__ import annotations

import re

__all__ = ["brief"]

#: Letters of a sentence; two lines of a wide terminal.
LONGEST = 300
#: Items of a list that are shown, and how many make it a list.
_SHOWN, _LIST_FROM = 3, 8

#: A condition that was not met, before the sentence that tells what it means. Most say ``false``.
_CONDITION = re.compile(r"Check '[^']{0,300}' failed at [^\s:]{1,300}:\d{1,7}: ?")
#: Before every message of ONNX Runtime.
_ORT = re.compile(r"\[ONNXRuntimeError\] : \d{1,3} : [A-Z_]{1,40} : ")
#: A position in source code, and the signature of the function that ONNX Runtime prints after it.
_POSITION = re.compile(
    # Only where a path begins: from each letter of a long one, this would take minutes.
    r"(?<![\w.+\-/\\])(?:[A-Za-z]:)?[\w.+\-/\\]{0,300}[/\\][\w.+-]{1,100}\.(?:cc|cpp|cxx|c|hpp|hh|h|cu):\d{1,7}:?"
    r"(?: [\w:<>*&, ]{1,200}::[\w~]{1,100}\([^()]{0,300}\)(?: const)?)? ?"
)
#: Items without spaces, as names of nodes and tensors are.
_LIST = re.compile(rf"(?<![^\s,;])(?:[^\s,;]{{1,300}}[,;] ?){{{_LIST_FROM - 1},}}[^\s,;]{{1,300}}")
#: What says nothing by itself.
_EMPTY = frozenset({"", "true", "false", "none", "null", "0", "1"})


def brief(text: str, longest: int = LONGEST) -> str:
    """`text` as one line, without source positions, repetitions and long lists; empty if nothing is left.

    Args:
        text: a message, of any number of lines.
        longest: letters; what is longer ends in an ellipsis.
    """
    line = _POSITION.sub("", _CONDITION.sub("", _ORT.sub("", " ".join(text.split()))))
    parts = dict.fromkeys(part.strip() for part in line.split("; "))
    telling = [part for part in parts if part.strip(" .").lower() not in _EMPTY]
    line = _LIST.sub(_shortened, "; ".join(telling)).strip()
    if len(line) <= longest:
        return line
    return f"{line[:longest].rsplit(' ', 1)[0].rstrip(' ,;:')} …"


def _shortened(match: re.Match[str]) -> str:
    items = [item.strip() for item in re.split("[,;]", match[0])]
    return f"{', '.join(items[:_SHOWN])}, … ({len(items)} in all)"
