"""The OpenVINO EP's compatibility string, and its rules as a function of string and machine.

The EP's own check was taken apart by asking it (release 1.8.1; tests/toolchains/test_openvino_rules.py
asks it thousands of times more): the string is JSON, `ovep_compat_ver` and `ov_compat_string` are compared as
texts, of `ovep_bin_ver` only the major version counts, and `ovep_ver` not at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from aotpack.common.remember import remember_last, remember_short
from aotpack.machine.profile import Machine
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict, not_in_profile

__all__ = [
    "CAP",
    "CPU_VENDOR",
    "EP",
    "FORMER_CAP",
    "ISA_CLASSES",
    "IsaClass",
    "OpenVinoString",
    "cap_of",
    "isa_class",
    "judge",
    "parsed",
    "string_for",
]

#: As onnxruntime knows it.
EP = "OpenVINOExecutionProvider"

#: The EP lists devices of Intel alone, CPUs too (its ov_factory.cc, GetSupportedDevices): on an AMD EPYC with
#: AVX-512 it lists none (release 1.8.1, seen on 2026-11-24), so that nothing can be compiled or loaded there.
CPU_VENDOR = "GenuineIntel"

#: Caps the ISA that oneDNN, and with it the EP, uses: it chooses the class when compiling, and makes a
#: machine out of a lesser class when loading.
CAP = "ONEDNN_MAX_CPU_ISA"

#: Its former name, read where it is not set or empty.
FORMER_CAP = "DNNL_MAX_CPU_ISA"

_COMPAT_VERSION = "1.0"

#: The major version of the blob's format that the EP reads, as C++'s stoi finds it in front of a text.
_BINARY_VERSION = re.compile(r"[ \t\n\v\f\r]*\+?0*1(?![0-9])")

#: As the EP writes it; all else that JSON allows is parsed.
_USUAL = re.compile(
    r'\{"ovep_compat_ver":"([0-9.]*)","ovep_ver":"[0-9A-Za-z.+-]*",'
    r'"ovep_bin_ver":"([0-9.]*)","ov_compat_string":"([^"\\\x00-\x1f\ud800-\udfff]*)"\}'
)

#: What is wrong where OpenVINO's release, the CPU's vendor or the ISA class is another one.
_CODES = (Code.RUNTIME_VERSION, Code.NO_DEVICE, Code.ISA)

_INNER = re.compile(r"meta=1\.0;ov=([^;]*);isa=([^;]*)")


@dataclass(frozen=True, slots=True)
class IsaClass:
    """One of oneDNN's ISA classes."""

    #: The value of ONEDNN_MAX_CPU_ISA.
    cap: str
    #: As the EP's string names it (oneDNN's isa_info).
    described: str
    #: archspec's names of the CPU features that it needs.
    features: frozenset[str]
    #: Other values of ONEDNN_MAX_CPU_ISA that leave no more of these features.
    also: tuple[str, ...] = ()


_SSE41 = frozenset({"sse4_1"})
_AVX = _SSE41 | {"avx"}
_AVX2 = _AVX | {"avx2"}
_AVX2_VNNI = _AVX2 | {"avx_vnni"}
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_VNNI = _AVX512 | {"avx512_vnni"}
_BF16 = _VNNI | {"avx512_bf16"}
_FP16 = _BF16 | {"avx512_fp16", "avx_vnni"}
_AMX = _FP16 | {"amx_tile", "amx_int8", "amx_bf16"}

#: Best first. Those without a target in the catalogue are for profiles of newer machines: no blob of
#: another class runs there.
ISA_CLASSES = (
    IsaClass(
        "AVX512_CORE_AMX_FP16",
        "Intel AVX10.1 and Intel AMX with bfloat16, float16 and 8-bit integer support",
        _AMX | {"amx_fp16"},
        ("AVX10_1_512_AMX_FP16", "AVX10_2_512_AMX_2"),
    ),
    IsaClass(
        "AVX512_CORE_AMX",
        "Intel AVX10.1 and Intel AMX with bfloat16 and 8-bit integer support",
        _AMX,
        ("AVX10_1_512_AMX",),
    ),
    IsaClass("AVX512_CORE_FP16", "Intel AVX 10.1", _FP16, ("AVX10_1_512", "AVX10_2_512")),
    IsaClass("AVX512_CORE_BF16", "Intel AVX-512 with Intel DL Boost and bfloat16 support", _BF16),
    IsaClass("AVX512_CORE_VNNI", "Intel AVX-512 with Intel DL Boost", _VNNI),
    IsaClass("AVX512_CORE", "Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions", _AVX512),
    IsaClass(
        "AVX2_VNNI_2",
        "Intel AVX2 with Intel DL Boost, float16 and bfloat16 support",
        _AVX2_VNNI | {"avx_vnni_int8", "avx_ne_convert"},
    ),
    IsaClass("AVX2_VNNI", "Intel AVX2 with Intel DL Boost", _AVX2_VNNI),
    IsaClass("AVX2", "Intel AVX2", _AVX2),
    IsaClass("AVX", "Intel AVX", _AVX),
    IsaClass("SSE41", "Intel SSE4.1", _SSE41),
)

_BY_CAP = {cap: known for known in ISA_CLASSES for cap in (known.cap, *known.also)}


def cap_of(machine: Machine) -> str | None:
    """The cap that the machine's environment sets."""
    return machine.environment.get(CAP) or machine.environment.get(FORMER_CAP)


def isa_class(features: Iterable[str], cap: str | None = None) -> IsaClass | None:
    """The best class that a CPU with these features has, under the cap of ONEDNN_MAX_CPU_ISA.

    The cap is a mask of features and not a rank: AVX2_VNNI does not lie below AVX512_CORE. An
    unknown cap is none (oneDNN, cpu_isa_traits).
    """
    available = frozenset(features)
    if cap is not None and (capped := _BY_CAP.get(cap.upper())):
        available &= capped.features
    return next((known for known in ISA_CLASSES if known.features <= available), None)


class OpenVinoString(NamedTuple):
    """The string taken apart. An absent key is an empty text, as the EP has it."""

    compat_version: str
    binary_version: str
    #: ``meta=1.0;ov=<release>;isa=<class>``, written by OpenVINO; empty before release 1.8 of the EP.
    inner: str

    @classmethod
    def parse(cls, text: str) -> OpenVinoString | None:
        """None where the EP's JSON parser, or the EP, raises."""
        if usual := _USUAL.fullmatch(text):
            return cls._make(usual.groups())
        try:
            # As the EP gets it: a C string, in which a byte order mark is allowed.
            keys = _json(text.partition("\0")[0].removeprefix("\ufeff"))
            return cls(*(_text(keys, key) for key in ("ovep_compat_ver", "ovep_bin_ver", "ov_compat_string")))
        except (ValueError, TypeError, RecursionError):
            return None


#: `OpenVinoString.parse`, remembered: most variants of a package have the string of another one.
parsed = remember_short(OpenVinoString.parse)


def string_for(release: str, isa: IsaClass) -> str:
    """What an EP with this release of OpenVINO writes for a blob of this class, its own version left out."""
    inner = f"meta=1.0;ov={release};isa={isa.described}"
    return json.dumps(
        {"ovep_compat_ver": _COMPAT_VERSION, "ovep_bin_ver": "1.1", "ov_compat_string": inner},
        separators=(",", ":"),
    )


def judge(text: str | None, machine: Machine) -> Verdict:
    """The EP's rules: the string's form, OpenVINO's release, the CPU's vendor and the ISA class, all equal.

    Args:
        text: the compatibility string of a blob for CPUs; None if the blob has none.
        machine: of whose EP the detail ``openvino`` is the release inside it.
    """
    string = parsed(text) if text else None
    if string is None:
        return Verdict(
            Grade.UNSUPPORTED, Code.STRING_MALFORMED, "OpenVINO cannot read its compatibility string."
        )
    if string.compat_version != _COMPAT_VERSION or not string.inner:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.STRING_NOT_APPLICABLE,
            "Its compatibility string is of another form than this EP writes; such blobs do not load.",
        )
    if not _BINARY_VERSION.match(string.binary_version):
        return Verdict(
            Grade.UNSUPPORTED, Code.STRING_NEWER, "Its blob is of another format than this EP reads."
        )
    return _comparing(machine)(string.inner)


@remember_last
def _comparing(machine: Machine) -> Callable[[str], Verdict]:
    """What judges OpenVINO's part of a string for a machine."""
    installed = (machine.eps or {}).get(EP)
    release = installed.details.get("openvino") if installed else None
    described: str | None = None
    if machine.cpu.features is not None:
        isa = isa_class(machine.cpu.features, cap_of(machine))
        described = isa.described if isa else "none"
    maker = _same("CPU vendor", machine.cpu.vendor, CPU_VENDOR)

    # Few releases and classes make many strings.
    def compare(inner: str) -> Verdict:
        return _compare(inner, release, maker, described)

    return remember_short(compare)


def _same(what: str, found: str | None, needed: str) -> Comparison:
    return Comparison(what, found, needed, None if found is None else found == needed)


def _compare(inner: str, release: str | None, maker: Comparison, described: str | None) -> Verdict:
    parts = _INNER.fullmatch(inner)
    if parts is None:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.STRING_NEWER,
            "OpenVINO's part of its compatibility string is of another form than this release writes.",
        )
    compared = _same("OpenVINO", release, parts[1]), maker, _same("ISA class", described, parts[2])
    for item, code in zip(compared, _CODES, strict=True):
        if item.fits is False:
            sentence = (
                f"The OpenVINO EP takes Intel CPUs only; the vendor of this one is {item.found}."
                if code is Code.NO_DEVICE
                else f"It was compiled for {item.what} {item.needed}; here it is {item.found}."
            )
            return Verdict(Grade.UNSUPPORTED, code, sentence, compared)
    for item in compared:
        if item.fits is None:
            return not_in_profile(item.what, compared)
    sentence = f"It was compiled for this ISA class ({parts[2]})."
    return Verdict(Grade.OPTIMAL, Code.FITS, sentence, compared)


def _json(text: str) -> dict[str, Any]:
    keys = _DECODER.decode(text)
    if not isinstance(keys, dict):
        raise TypeError(keys)
    if "\\u" in text:
        # Half of a surrogate pair is no character; Python's parser lets it through.
        json.dumps(keys, ensure_ascii=False).encode()
    return keys


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(number)
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


#: The EP's parser has no NaN, and refuses numbers that no double holds.
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, parse_int=_finite)


def _text(keys: dict[str, Any], key: str) -> str:
    value = keys.get(key, "")
    if not isinstance(value, str):
        raise TypeError(value)
    return value
