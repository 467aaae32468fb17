"""OpenVINO: one blob per ISA class of the CPU."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any

from aotpack.errors import UsageError
from aotpack.machine import Machine
from aotpack.manifest import Variant
from aotpack.target import Precision, Target
from aotpack.toolchain.base import RunsHere
from aotpack.toolchain.plugin import PluginToolchain
from aotpack.verdict import Code, Comparison, Grade, Verdict, version_fits

__all__ = ["ISA_CLASSES", "IsaClass", "OpenVinoString", "OpenVinoToolchain", "isa_class"]

#: Caps the ISA that oneDNN, and with it the EP, uses: it chooses the class when compiling, and makes a
#: machine out of a lesser class when loading.
_CAP = "ONEDNN_MAX_CPU_ISA"

#: The newest blob format that the EP reads (`ovep_bin_ver`).
_BINARY_VERSION = "1.1"


@dataclass(frozen=True, slots=True)
class IsaClass:
    """One of oneDNN's ISA classes."""

    #: The value of ONEDNN_MAX_CPU_ISA.
    cap: str
    #: As the EP's string names it (oneDNN's isa_info).
    described: str
    #: archspec's names of the CPU features that it needs.
    features: frozenset[str]


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
    ),
    IsaClass("AVX512_CORE_AMX", "Intel AVX10.1 and Intel AMX with bfloat16 and 8-bit integer support", _AMX),
    IsaClass("AVX512_CORE_FP16", "Intel AVX 10.1", _FP16),
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


def isa_class(features: Iterable[str], cap: str | None = None) -> IsaClass | None:
    """The best class that a CPU with these features has, under the cap of ONEDNN_MAX_CPU_ISA.

    The cap is a mask of features and not a rank: AVX2_VNNI does not lie below AVX512_CORE. An
    unknown cap is none (oneDNN, cpu_isa_traits).
    """
    available = frozenset(features)
    for known in ISA_CLASSES:
        if cap is not None and known.cap == cap.upper():
            available &= known.features
    return next((known for known in ISA_CLASSES if known.features <= available), None)


@dataclass(frozen=True, slots=True)
class OpenVinoString:
    """The EP's compatibility string, taken apart (ov_factory.cc and FACTS.md, 1)."""

    compat_version: str
    binary_version: str
    openvino: str
    isa: str

    @classmethod
    def parse(cls, text: str) -> OpenVinoString | None:
        """None if it is not of this form."""
        try:
            keys: Any = json.loads(text)
            inner = keys["ov_compat_string"]
            pairs = dict(part.split("=", 1) for part in inner.split(";")) if inner else {}
            return cls(
                compat_version=_text(keys["ovep_compat_ver"]),
                binary_version=_text(keys["ovep_bin_ver"]),
                openvino=pairs.get("ov", ""),
                isa=pairs.get("isa", ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


class OpenVinoToolchain(PluginToolchain):
    """The OpenVINO EP, for Intel CPUs and whatever else has their instructions."""

    name = "openvino"
    ep = "OpenVINOExecutionProvider"
    distribution = "onnxruntime-ep-openvino"
    module = "onnxruntime_ep_openvino"
    extra = "openvino"
    environment = (_CAP,)
    options = MappingProxyType(
        {
            "load_config": r"\{.*\}",
            "num_of_threads": r"[0-9]{1,4}",
            "num_streams": r"[0-9]{1,4}",
            "model_priority": "LOW|MEDIUM|HIGH|DEFAULT",
            "enable_qdq_optimizer": "true|false|True|False",
            "enable_opencl_throttling": "true|false|True|False",
        }
    )
    # Its frontend refuses 2-bit types (FACTS.md, 6).
    widens = MappingProxyType({"INT2": "INT4", "UINT2": "UINT4"})

    def runtime_details(self) -> Mapping[str, str]:
        """The release of OpenVINO in the EP's package: a blob loads in no other."""
        return {"openvino": release} if (release := _bundled_release()) else {}

    def with_precision(self, target: Target, precision: Precision) -> Target:
        """By OpenVINO's INFERENCE_PRECISION_HINT, at compile and again at load."""
        device = target.device.upper()
        try:
            config: dict[str, dict[str, str]] = json.loads(target.provider_options.get("load_config", "{}"))
            own = {**config.get(device, {}), "INFERENCE_PRECISION_HINT": precision}
        except (ValueError, TypeError, AttributeError):
            raise UsageError("is not JSON", where=f"target {target.name}, option load_config") from None
        options = {**target.provider_options, "load_config": json.dumps({**config, device: own})}
        return target.model_copy(update={"precision": precision, "provider_options": options})

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """It compiles for the class it runs on, so the class must be within what this CPU has."""
        if missing := super().why_not_compile(target, machine):
            return missing
        if machine.arch != "x86_64":
            return "OpenVINO compiles for x86-64 CPUs on x86-64 machines only"
        features = machine.cpu.features or ()
        lacking = [name for name in target.requires.isa or () if name not in features]
        return (
            f"this CPU lacks {', '.join(lacking)}, so it cannot compile for those that have it"
            if lacking
            else None
        )

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """On this CPU, or on a lesser one that the cap makes of it."""
        if why := self.why_not_compile(target, machine):
            return RunsHere(None, why)
        own = isa_class(machine.cpu.features or (), machine.environment.get(_CAP))
        cap = target.environment.get(_CAP)
        return RunsHere("host" if own is not None and own.cap == cap else "isa-emulation")

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """The EP's rules: the string's form, then OpenVINO's release and the ISA class, both equal.

        `ovep_ver` does not count. Source: measured on 1.8.1 (FACTS.md, 1, OpenVINO CPU).
        """
        text = variant.compatibility.ep_string
        string = OpenVinoString.parse(text) if text else None
        if string is None:
            return Verdict(
                Grade.UNSUPPORTED, Code.STRING_MALFORMED, "OpenVINO cannot read its compatibility string."
            )
        if string.compat_version != "1.0" or not string.openvino:
            return Verdict(
                Grade.UNSUPPORTED,
                Code.STRING_NOT_APPLICABLE,
                "Its compatibility string is of another form than this EP writes; such blobs do not load.",
            )
        installed = (machine.eps or {}).get(self.ep)
        release = installed.details.get("openvino") if installed else None
        features = machine.cpu.features
        own = isa_class(features, machine.environment.get(_CAP)) if features is not None else None
        described = own.described if own else None
        compared = (
            Comparison(
                "OpenVINO", release, string.openvino, None if release is None else release == string.openvino
            ),
            Comparison(
                "ISA class", described, string.isa, None if features is None else described == string.isa
            ),
        )
        for item, code in zip(compared, (Code.RUNTIME_VERSION, Code.ISA), strict=True):
            if item.fits is False:
                return Verdict(
                    Grade.UNSUPPORTED,
                    code,
                    f"It was compiled for {item.what} {item.needed}; here it is {item.found}.",
                    compared,
                )
        if version_fits(string.binary_version, f"<={_BINARY_VERSION}") is False:
            return Verdict(
                Grade.UNSUPPORTED,
                Code.STRING_NEWER,
                "Its blob is of a newer format than this EP reads.",
                compared,
            )
        if any(item.fits is None for item in compared):
            missing = next(item.what for item in compared if item.fits is None)
            return Verdict(
                Grade.UNKNOWN,
                Code.NOT_IN_PROFILE,
                f"The machine profile does not say its {missing}.",
                compared,
            )
        return Verdict(
            Grade.OPTIMAL, Code.FITS, f"It was compiled for this ISA class ({string.isa}).", compared
        )


@functools.cache
def _bundled_release() -> str | None:
    """The release in the soname of the package's libopenvino: ``libopenvino.so.2641`` is 2026.4.1.

    Its string has the release too, but only the loaded library writes one.
    """
    try:
        files = metadata.files(OpenVinoToolchain.distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if match := re.fullmatch(r"libopenvino\.so\.(\d\d)(\d)(\d)", file.name):
            return f"20{match[1]}.{match[2]}.{match[3]}"
    return None
