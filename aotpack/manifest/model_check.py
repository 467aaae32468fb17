"""Which files and operators the ONNX of a variant asks for, before ONNX Runtime or an EP gets to see it.

ONNX names files in two places: where the data of a tensor lies (``external_data``), and where the blob of
an EPContext node lies (``ep_cache_context``). Both must be files of the variant. Other attributes of an
EPContext node are held to what EPs read from it, and operators to domains whose kernels come with ONNX
Runtime: an operator of another domain is code that whoever loads the package must bring along. Numbers of
fields are those of onnx.proto (ONNX 1.23, IR 14), the attributes those of EPContext in ONNX Runtime
(core/graph/contrib_ops/contrib_defs.cc) and of the EPs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from aotpack._text import shortened
from aotpack.common.paths import path_issue
from aotpack.errors import FormatError, LimitExceeded, NotAllowed
from aotpack.manifest.protobuf import LENGTH, MAX_DEPTH, VARINT, ByteRange, Field, Reader

__all__ = [
    "ANY_DOMAIN",
    "DOMAINS",
    "EP_CONTEXT",
    "LOADS_CODE",
    "MAX_OPERATORS",
    "NOTHING_MORE",
    "Allowance",
    "check_model",
]

#: Domains of operators whose kernels are part of ONNX Runtime and its EPs; "" is ONNX's own.
DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)

#: Operators of these domains that run what a model brings along: Python, or another framework's code.
LOADS_CODE = frozenset(
    ("com.microsoft", name)
    for name in ("ATen", "ATenOp", "PyOp", "PythonOp", "PythonOpGrad", "Snpe", "TritonOp")
)

#: Distinct operators of other domains, and functions of a model. torch's exporter writes some hundred.
MAX_OPERATORS = 65_536

#: Bytes of a name, a location or a text attribute.
_MAX_TEXT = 65_536
#: Attributes of an EPContext node; EPs write a dozen.
_MAX_ATTRIBUTES = 64
#: ONNX Runtime's own note where an initializer lies in memory: the offset is a pointer.
_EXTERNAL_KEYS = ("location", "offset", "length", "checksum")

_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What the ONNX of a package may have beside what every package may."""

    #: Domains of operators that whoever loads the package has brought kernels for; ``*`` stands for all.
    domains: frozenset[str] = frozenset()
    #: Attributes of EPContext nodes, as `aotpack.toolchains.base.Toolchain.ep_context_attributes`.
    attributes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, toolchain: object, domains: frozenset[str] = frozenset()) -> Allowance:
        """For variants of a toolchain; a third party's may say nothing of attributes."""
        return cls(domains=domains, attributes=getattr(toolchain, "ep_context_attributes", frozenset()))


#: What every package may have is all.
NOTHING_MORE = Allowance()

#: For `Allowance.domains`, where it is not known yet which kernels there will be.
ANY_DOMAIN = frozenset({"*"})


class _Attribute(NamedTuple):
    name: str
    #: None: it is no text, or one that is longer than any name.
    text: str | None
    integer: int | None


def _integer(low: int, high: int) -> Callable[[_Attribute], str | None]:
    def issue(attribute: _Attribute) -> str | None:
        value = attribute.integer
        return None if value is not None and low <= value <= high else f"is not {low} to {high}"

    return issue


def _word(word: str) -> Callable[[_Attribute], str | None]:
    return lambda attribute: None if attribute.text == word else f"is not {word!r}"


def _label(attribute: _Attribute) -> str | None:
    """Some EPs make the names of files of it."""
    text = attribute.text
    if text is None or not text.isprintable():
        return "is no text"
    if text.startswith("/") or "\\" in text or "://" in text or text[1:2] == ":" or ".." in text.split("/"):
        return f"is {shortened(text)}, which could name a file"
    return None


def _file_name(attribute: _Attribute) -> str | None:
    """Of the model that was compiled; some EPs read it again where their user says in which folder it is."""
    text = attribute.text or ""
    return _label(attribute) or (None if not set(text) & set("/:") else f"is {shortened(text)}, a path")


def _text(attribute: _Attribute) -> str | None:
    return None if attribute.text is not None else "is no text"


def _own(attribute: _Attribute) -> str | None:
    """Of an EP that says itself that no attribute of its nodes names a file."""
    return None if attribute.text is None else _label(attribute)


_MAX_COUNT = 2**63 - 1

#: Attributes of EPContext nodes beside ``ep_cache_context``, and what each may hold. All others are refused:
#: ``ep_dlc_context``, for one, names a file too.
EP_CONTEXT: Mapping[str, Callable[[_Attribute], str | None]] = {
    "main_context": _integer(0, 1),
    # 1: the blob is the attribute itself, in the memory of whoever reads the model.
    "embed_mode": _integer(0, 0),
    "ep_context_op_domain": _word("com.microsoft"),
    "ep_context_type": _word("bin"),
    "ep_sdk_version": _label,
    "hardware_architecture": _label,
    "io_name_overrides": _text,
    "is_multi_soc_ep_context": _integer(0, 1),
    "max_size": _integer(0, _MAX_COUNT),
    "notes": _label,
    "onnx_model_filename": _file_name,
    "partition_name": _label,
    "source": _label,
}


def check_model(
    data: ByteRange, model: str, files: Mapping[str, int], allowance: Allowance = NOTHING_MORE
) -> frozenset[str]:
    """Hold the ONNX of a variant to the files of the variant, and to operators that come with ONNX Runtime.

    Args:
        data: the bytes of the ONNX.
        model: its path in the variant.
        files: path to size in bytes of each file of the variant.
        allowance: what it may have beside that.

    Returns:
        The domains of the operators that neither ONNX Runtime nor a function of the model has.

    Raises:
        NotAllowed: it is not well-formed, names a file that is none of the variant's or bytes beyond its end,
            or has an operator that neither ONNX Runtime, nor a function of the model, nor `allowance` has.
    """
    if PurePosixPath(model).suffix.lower() == ".ort":
        raise NotAllowed("is of ORT's own format by its name, which is not read", where=model)
    try:
        return _Check(data, PurePosixPath(model).parent, files, allowance).model()
    except (FormatError, LimitExceeded) as error:
        raise NotAllowed(str(error), where=model) from None
    except NotAllowed as error:
        raise error.at(model) from None


#: Fields that are looked at in each message: number to wire type, and whether it may stand there once only.
#: Of one that stands twice protobuf takes the last or merges both, and readers would not all find the same.
_Fields = Mapping[int, tuple[int, bool]]
_ONE, _MANY, _NUMBER = (LENGTH, True), (LENGTH, False), (VARINT, True)

_MODEL: _Fields = {7: _ONE, 14: _MANY, 20: _MANY, 25: _MANY}
_ENTRY: _Fields = {1: _ONE, 2: _ONE}
_TRAINING: _Fields = {1: _ONE, 2: _ONE}
_FUNCTION: _Fields = {1: _ONE, 7: _MANY, 10: _ONE, 11: _MANY, 13: _ONE}
_GRAPH: _Fields = {1: _MANY, 5: _MANY, 15: _MANY}
_NODE: _Fields = {3: _ONE, 4: _ONE, 5: _MANY, 7: _ONE, 8: _ONE}
_ATTRIBUTE: _Fields = {
    1: _ONE,
    3: _NUMBER,
    4: _ONE,
    5: _ONE,
    6: _ONE,
    10: _MANY,
    11: _MANY,
    21: _ONE,
    22: _ONE,
    23: _MANY,
}
_TENSOR: _Fields = {8: _ONE, 13: _MANY, 14: _NUMBER}
_SPARSE: _Fields = {1: _ONE, 2: _ONE}

#: Metadata by which a model sets options of its session, profiling among them (core/session/
#: inference_session_utils.cc).
_SESSION_METADATA = "ort_config"


class _Check:
    """One walk over one model."""

    def __init__(
        self, data: ByteRange, folder: PurePosixPath, files: Mapping[str, int], allowance: Allowance
    ) -> None:
        self._reader = Reader(data)
        self._folder = folder
        self._files = files
        self._allowance = allowance
        #: (domain, name, overload) of operators that are not ONNX Runtime's, and of the model's functions.
        self._operators: set[tuple[str, str, str]] = set()
        self._functions: set[tuple[str, str, str]] = set()

    def model(self) -> frozenset[str]:
        for item in self._fields(_MODEL, 0, self._reader.size, 0):
            match item.number:
                case 7:
                    self._graph(item, 1)
                case 14:
                    key, _ = self._entry(item, 1)
                    if key == _SESSION_METADATA:
                        raise NotAllowed(f"has metadata {key}, which sets options of its session")
                case 20:
                    for graph in self._fields(_TRAINING, item.start, item.end, 1):
                        self._graph(graph, 2)
                case 25:
                    self._function(item, 1)
        foreign = sorted(self._operators - self._functions)
        for domain, operator, _ in foreign:
            if self._allowance.domains.isdisjoint((domain, "*")):
                raise NotAllowed(
                    f"has the operator {shortened(operator)} of the domain {shortened(domain)}, which is no "
                    "part of ONNX Runtime: give its library (custom_ops=[LIBRARY], --custom-ops LIBRARY)"
                )
        return frozenset(domain for domain, _, _ in foreign)

    def _fields(self, known: _Fields, start: int, end: int, depth: int) -> Iterator[Field]:
        """The fields of a message that are looked at."""
        if depth > MAX_DEPTH:
            raise LimitExceeded("is nested too deeply", expected=f"<= {MAX_DEPTH} messages")
        seen = 0
        for item in self._reader.fields(start, end, known):
            wire, once = known[item.number]
            if item.wire != wire:
                raise FormatError("is malformed: a field has another type than in ONNX")
            if once:
                if seen >> item.number & 1:
                    raise FormatError("is malformed: it has a field twice that may stand once")
                seen |= 1 << item.number
            yield item

    def _function(self, whole: Field, depth: int) -> None:
        name = domain = overload = ""
        for item in self._fields(_FUNCTION, whole.start, whole.end, depth):
            match item.number:
                case 1:
                    name = self._name(item)
                case 7:
                    self._node(item, depth + 1)
                case 10:
                    domain = self._name(item)
                case 11:
                    self._attribute(item, depth + 1)
                case 13:
                    overload = self._name(item)
        self._note(self._functions, (domain, name, overload))

    def _graph(self, whole: Field, depth: int) -> None:
        for item in self._fields(_GRAPH, whole.start, whole.end, depth):
            match item.number:
                case 1:
                    self._node(item, depth + 1)
                case 5:
                    self._tensor(item, depth + 1)
                case 15:
                    self._sparse(item, depth + 1)

    def _node(self, whole: Field, depth: int) -> None:
        name = operator = domain = overload = ""
        attributes: list[_Parts] = []
        for item in self._fields(_NODE, whole.start, whole.end, depth):
            match item.number:
                case 3:
                    name = self._name(item)
                case 4:
                    operator = self._name(item)
                case 5:
                    parts = self._attribute(item, depth + 1)
                    if len(attributes) <= _MAX_ATTRIBUTES:
                        attributes.append(parts)
                case 7:
                    domain = self._name(item)
                case 8:
                    overload = self._name(item)
        if operator == "EPContext":
            self._ep_context(name, attributes)
        if (domain, operator) in LOADS_CODE:
            raise NotAllowed(f"has the operator {operator} of {domain}, which runs code that it brings along")
        if domain not in DOMAINS:
            self._note(self._operators, (domain, operator, overload))

    def _attribute(self, whole: Field, depth: int) -> _Parts:
        parts: dict[int, Field] = {}
        for item in self._fields(_ATTRIBUTE, whole.start, whole.end, depth):
            match item.number:
                case 5 | 10:
                    self._tensor(item, depth + 1)
                case 6 | 11:
                    self._graph(item, depth + 1)
                case 22 | 23:
                    self._sparse(item, depth + 1)
                case number:
                    parts[number] = item
        return parts

    def _sparse(self, whole: Field, depth: int) -> None:
        for item in self._fields(_SPARSE, whole.start, whole.end, depth):
            self._tensor(item, depth + 1)

    def _tensor(self, whole: Field, depth: int) -> None:
        name, is_external = "", False
        external: dict[str, str] = {}
        for item in self._fields(_TENSOR, whole.start, whole.end, depth):
            match item.number:
                case 8:
                    name = self._name(item)
                case 13:
                    key, value = self._entry(item, depth + 1)
                    if key in external or key not in _EXTERNAL_KEYS:
                        raise NotAllowed(f"external data of {shortened(name)} has the key {shortened(key)}")
                    external[key] = value
                case 14:
                    # protobuf reads 32 bits of it, and takes a number that it does not know for the default.
                    is_external = item.start & 0xFFFFFFFF == 1
        if external or is_external:
            self._external(name, external)

    def _external(self, name: str, external: Mapping[str, str]) -> None:
        what, location = f"external data of {shortened(name)}", external.get("location", "")
        size = self._size_of(location)
        if size is None:
            raise NotAllowed(f"{what} lies in {shortened(location)}, which is no file of the variant")
        offset, length = external.get("offset", "0"), external.get("length", "0")
        if not (_DIGITS.fullmatch(offset) and _DIGITS.fullmatch(length)):
            raise NotAllowed(f"{what} has a place that is no number")
        end = int(offset) + int(length)
        if end > size:
            raise NotAllowed(f"{what} ends at {end}; {shortened(location)} has {size} bytes")

    def _ep_context(self, name: str, attributes: list[_Parts]) -> None:
        node = f"EPContext node {shortened(name)}"
        if len(attributes) > _MAX_ATTRIBUTES:
            raise NotAllowed(f"{node} has more than {_MAX_ATTRIBUTES} attributes")
        if issue := _label(_Attribute("name", name, None)):
            raise NotAllowed(f"{node}: its name {issue}")
        found: dict[str, _Attribute] = {}
        for parts in attributes:
            attribute = self._value(parts)
            if attribute.name in found:
                raise NotAllowed(f"{node} has {shortened(attribute.name)} twice")
            found[attribute.name] = attribute
            if attribute.name == "ep_cache_context":
                continue
            own = _own if attribute.name in self._allowance.attributes else None
            issue_of = EP_CONTEXT.get(attribute.name, own)
            issue = "is none that a package may have" if issue_of is None else issue_of(attribute)
            if issue is not None:
                raise NotAllowed(f"{node}: {shortened(attribute.name)} {issue}")
        blob = found.get("ep_cache_context")
        if blob is None:
            # Of several nodes that share one blob the main one alone says where it is.
            if "main_context" in found and found["main_context"].integer == 0:
                return
            raise NotAllowed(f"{node} has no ep_cache_context")
        if "embed_mode" not in found:
            raise NotAllowed(f"{node} has no embed_mode, which then means that the blob lies in the ONNX")
        if blob.text is None or self._size_of(blob.text) is None:
            raise NotAllowed(
                f"{node}: ep_cache_context is {shortened(blob.text or '')}, which is no file of the variant"
            )
        if PurePosixPath(blob.text).stem.endswith(".stripped"):
            # An engine without weights: its EP looks for the model that they are in elsewhere.
            raise NotAllowed(
                f"{node}: ep_cache_context is {shortened(blob.text)}, a blob without its weights"
            )

    def _value(self, parts: _Parts) -> _Attribute:
        if 21 in parts:
            raise NotAllowed("an EPContext node takes an attribute from outside its function")
        text = self._reader.read(parts[4], _MAX_TEXT) if 4 in parts else None
        return _Attribute(
            self._name(parts[1]) if 1 in parts else "",
            None if text is None else _decoded(text),
            parts[3].start if 3 in parts else None,
        )

    def _size_of(self, location: str) -> int | None:
        """The size of the file that an ONNX means by `location`; None if it is none of the variant's."""
        while location.startswith("./"):
            location = location[2:]
        if path_issue(location) is not None:
            return None
        return self._files.get(str(self._folder / location))

    def _entry(self, whole: Field, depth: int) -> tuple[str, str]:
        """A pair of texts."""
        key = value = ""
        for item in self._fields(_ENTRY, whole.start, whole.end, depth):
            if item.number == 1:
                key = self._name(item)
            else:
                # Metadata may be long; it is not looked at. No location or number is.
                value = _decoded(self._reader.read(item, _MAX_TEXT) or b"")
        return key, value

    def _name(self, item: Field) -> str:
        text = self._reader.read(item, _MAX_TEXT)
        if text is None:
            raise LimitExceeded("has a name that is too long", expected=f"<= {_MAX_TEXT} bytes")
        return _decoded(text)

    def _note(self, where: set[tuple[str, str, str]], which: tuple[str, str, str]) -> None:
        where.add(which)
        if len(where) > MAX_OPERATORS:
            raise LimitExceeded("has too many operators and functions", expected=f"<= {MAX_OPERATORS}")


#: Of an attribute, by field number: those that hold no other message.
_Parts = dict[int, Field]


def _decoded(text: bytes) -> str:
    # protobuf checks no text of ONNX, which is of proto2: what is no UTF-8 stays distinct and is no path.
    return text.decode("utf-8", "backslashreplace")
