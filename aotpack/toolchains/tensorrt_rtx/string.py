"""The TensorRT-RTX EP's compatibility string, and rules for it as a function of string and machine.

The string is the hex of the engine's first 64 bytes. The EP gives them to the runtime's
``getEngineValidity``, which needs an RTX GPU to answer. The layout was inferred from engines that release
1.7.1.116 built for each compute capability and for several at once (little-endian)::

    0   "vtrt"            8   format (2)       16  length of the engine, 8 bytes
    24  release, 4 bytes  28  "vtrt" again     32  compute capabilities, a bit each

Nothing here was ever compared with a GPU's answer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from aotpack.machine.profile import Gpu, Machine
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict, not_in_profile

__all__ = ["EP", "HEADER_SIZE", "EngineHeader", "judge", "string_for"]

#: As onnxruntime knows it.
EP = "NvTensorRTRTXExecutionProvider"

#: Of the engine, in bytes.
HEADER_SIZE = 64

_HEX = re.compile(f"[0-9a-fA-F]{{{2 * HEADER_SIZE}}}")
_MAGIC = b"vtrt"
_FORMAT = 2
_LAYOUT = struct.Struct("<4s4xI4xQ4B4sI")

#: Compute capabilities in the order of their bits.
_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")

#: On the others the EP does not load, and on these from such a driver on (the vendor's support matrix).
_OLDEST_DRIVER = {"8.6": (555, 85), "8.9": (555, 85), "12.0": (570,), "12.1": (570,)}


@dataclass(frozen=True, slots=True)
class EngineHeader:
    """The front of an engine."""

    format: int
    #: Bytes of the whole engine.
    length: int
    #: The release of TensorRT-RTX that built it, such as ``1.7.1.116``; no other loads it.
    release: str
    #: Compute capabilities that it has code for.
    capabilities: tuple[str, ...]
    #: It names some that are not known here.
    unknown_capabilities: bool = False

    @classmethod
    def parse(cls, text: str) -> EngineHeader | None:
        """None if it is not of this form."""
        if not _HEX.fullmatch(text):
            return None
        magic, number, length, *release, again, mask = _LAYOUT.unpack_from(bytes.fromhex(text))
        if magic != _MAGIC:
            return None
        if again != _MAGIC and number == _FORMAT:
            return None
        named = tuple(name for bit, name in enumerate(_CAPABILITIES) if mask >> bit & 1)
        return cls(number, length, ".".join(map(str, release)), named, bool(mask >> len(_CAPABILITIES)))


def string_for(release: str, capabilities: Iterable[str]) -> str:
    """The header of an engine of this release for these compute capabilities, its sizes zero."""
    numbers = [int(part) for part in release.split(".")]
    mask = sum(1 << _CAPABILITIES.index(capability) for capability in set(capabilities))
    packed = _LAYOUT.pack(_MAGIC, _FORMAT, 0, *numbers, _MAGIC, mask)
    return packed.ljust(HEADER_SIZE, b"\0").hex()


def judge(text: str | None, machine: Machine) -> Verdict:
    """The release must be that of the runtime, and one of the machine's GPUs among the capabilities.

    Args:
        text: the compatibility string; None where the EP wrote none (a model of several engines).
        machine: of whose EP the detail ``tensorrt-rtx`` is the release inside it.
    """
    if not text:
        return Verdict(
            Grade.UNKNOWN,
            Code.STRING_NOT_APPLICABLE,
            "It has no compatibility string: the EP writes none for several engines.",
        )
    header = EngineHeader.parse(text)
    if header is None:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.STRING_MALFORMED,
            "Its compatibility string is not the front of an engine.",
        )
    if header.format != _FORMAT:
        return Verdict(
            Grade.UNKNOWN,
            Code.STRING_NEWER,
            f"Its engine is of format {header.format}, which nobody knows here.",
        )
    installed = (machine.eps or {}).get(EP)
    found = installed.details.get("tensorrt-rtx") if installed else None
    # Build numbers are left out of what most report.
    same = None if found is None else found.split(".")[:3] == header.release.split(".")[:3]
    release = Comparison("TensorRT-RTX", found, header.release, same)
    if same is False:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.RUNTIME_VERSION,
            f"It was compiled by TensorRT-RTX {header.release}; here it is {found}.",
            (release,),
        )
    needed = ", ".join(header.capabilities) or "none that is known"
    if machine.gpus is None:
        return not_in_profile("GPU", (release, Comparison("GPU", None, f"compute capability {needed}", None)))
    gpus = [gpu for gpu in machine.gpus if gpu.vendor == "nvidia"]
    if not gpus:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.NO_DEVICE,
            f"It needs an RTX GPU of compute capability {needed}.",
            (release, Comparison("GPU", "no RTX GPU", f"compute capability {needed}", False)),
        )
    return min((_on_gpu(header, gpu, release) for gpu in gpus), key=lambda verdict: verdict.grade.rank)


def _on_gpu(header: EngineHeader, gpu: Gpu, release: Comparison) -> Verdict:
    own, needed = gpu.compute_capability, ", ".join(header.capabilities)
    if own is not None and own not in _CAPABILITIES and header.unknown_capabilities:
        own = None
    fits = None if own is None else own in header.capabilities and own in _OLDEST_DRIVER
    capability = Comparison("compute capability", gpu.compute_capability, needed, fits)
    compared: tuple[Comparison, ...] = (release, capability)
    if fits is False:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.OTHER_DEVICE,
            f"It was compiled for compute capability {needed}; this GPU has {own}.",
            compared,
        )
    if own is not None:
        oldest = _OLDEST_DRIVER[own]
        numbers = _numbers(gpu.driver)
        new_enough = None if numbers is None else numbers >= oldest
        driver = Comparison("driver", gpu.driver, f"at least {'.'.join(map(str, oldest))}", new_enough)
        compared = (*compared, driver)
        if new_enough is False:
            return Verdict(
                Grade.UNSUPPORTED,
                Code.DRIVER,
                f"It needs driver {'.'.join(map(str, oldest))} or newer; here it is {gpu.driver}.",
                compared,
            )
    for item in compared:
        if item.fits is None:
            return not_in_profile(item.what, compared)
    return Verdict(Grade.OPTIMAL, Code.FITS, f"It was compiled for compute capability {own}.", compared)


def _numbers(version: str | None) -> tuple[int, ...] | None:
    match = re.match(r"\d{1,9}(?:\.\d{1,9})*", version or "")
    return tuple(map(int, match[0].split("."))) if match else None
