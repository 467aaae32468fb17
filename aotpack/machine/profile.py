"""What a computer has: `read_profile` of one, take a `known` one, or `aotpack.runtime.probing` this one.

In a profile None means "not known", which never counts as a fit, and an empty list means "has none".
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from aotpack.common.values import Count, Value, parse_value
from aotpack.errors import ProfileError, UnknownName
from aotpack.files.input import read_input

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = [
    "MAX_PROFILE_SIZE",
    "MAX_PROFILE_TEXT",
    "Cpu",
    "Devices",
    "Ep",
    "Gpu",
    "Machine",
    "Npu",
    "contradiction",
    "find_machine",
    "known",
    "normal_arch",
    "parse_profile",
    "read_profile",
]

_log = logging.getLogger(__name__)

#: A profile of a real machine is below 4 KiB.
MAX_PROFILE_SIZE = 1024 * 1024
#: Characters of a text in a profile: driver versions, names of devices, values of environment variables.
MAX_PROFILE_TEXT = 1024
#: CPU features of a machine; the flags of today's processors are some 250.
MAX_FEATURES = 4096
#: Devices of a type, EPs, details of an EP, and environment variables, of each at most so many.
MAX_ENTRIES = 256

_Text = Annotated[str, Meta(max_length=MAX_PROFILE_TEXT)]


class Cpu(Value, kw_only=True):
    """A machine's processor."""

    vendor: _Text | None = None
    model: _Text | None = None
    #: archspec's name of the microarchitecture, such as ``icelake``.
    microarchitecture: _Text | None = None
    #: CPU features: archspec's names, and the raw flags of the system. A profile that leaves them out has
    #: those of its microarchitecture.
    features: Annotated[tuple[_Text, ...], Meta(max_length=MAX_FEATURES)] | None = None


class Gpu(Value, kw_only=True):
    """A graphics processor."""

    vendor: _Text
    name: _Text | None = None
    #: Such as ``8.9``, where the vendor numbers its generations so.
    compute_capability: _Text | None = None
    driver: _Text | None = None


class Npu(Value, kw_only=True):
    """A neural processor."""

    vendor: _Text
    name: _Text | None = None
    #: The vendor's name of the generation, such as ``v73`` or ``4000``.
    architecture: _Text | None = None
    vtcm_mb: Count | None = None
    driver: _Text | None = None


class Devices(NamedTuple):
    """The GPUs and NPUs of a machine."""

    gpus: tuple[Gpu, ...]
    npus: tuple[Npu, ...]


class Ep(Value, kw_only=True):
    """An execution provider that is installed."""

    version: _Text
    #: What else decides whether it takes a blob, such as the version of the runtime inside it.
    details: Annotated[dict[_Text, _Text], Meta(max_length=MAX_ENTRIES)] = {}


class Machine(Value, kw_only=True):
    """What a computer has, as far as it decides which variant fits."""

    profile: Literal["1"] = "1"
    name: _Text | None = None
    #: ``linux``, ``windows``, ``macos`` or ``android``.
    os: _Text | None = None
    #: ``x86_64`` or ``aarch64``.
    arch: _Text | None = None
    cpu: Cpu = Cpu()
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=MAX_ENTRIES)] | None = None
    npus: Annotated[tuple[Npu, ...], Meta(max_length=MAX_ENTRIES)] | None = None
    memory: Count | None = None
    onnxruntime: _Text | None = None
    eps: Annotated[dict[_Text, Ep], Meta(max_length=MAX_ENTRIES)] | None = None
    #: Environment variables that change what an EP accepts.
    environment: Annotated[dict[_Text, _Text], Meta(max_length=MAX_ENTRIES)] = {}

    def key(self) -> str:
        """sha256, hex, of all that decides which variant fits: another driver or EP is another machine."""
        said = self.replace(name=None, memory=None)
        return hashlib.sha256(msgspec.json.encode(said)).hexdigest()


def read_profile(path: str | os.PathLike[str]) -> Machine:
    """Read a machine profile (schemas/machine.schema.json) from a file.

    Raises:
        ProfileError: it cannot be read, or is no profile.
    """
    text = read_input(Path(path), MAX_PROFILE_SIZE, expected="a machine profile", error=ProfileError)
    return parse_profile(text, where=str(path))


def parse_profile(text: bytes, *, where: str) -> Machine:
    """Read a machine profile from untrusted JSON.

    Raises:
        ProfileError: it is too large, no JSON, or has unknown or wrong fields.
    """
    try:
        machine = parse_value(Machine, text, limit=MAX_PROFILE_SIZE)
    except ValueError as error:
        raise ProfileError(
            f"not a machine profile: {error}", where=where, hint="`aotpack machine > me.json` writes one"
        ) from None
    cpu = machine.cpu
    if cpu.features is None and cpu.microarchitecture is not None:
        cpu = cpu.replace(features=_features_of(cpu.microarchitecture))
    return machine.replace(cpu=cpu)


@functools.cache
def known() -> tuple[str, ...]:
    """Names of the machines whose profiles come with aotpack."""
    return tuple(sorted(path.name.removesuffix(".json") for path in _profiles().iterdir()))


def find_machine(name: str) -> Machine:
    """The machine of a profile's path, or the `known` one of that name.

    Raises:
        ProfileError: there is a file at that path, and it is no profile.
        UnknownName: there is neither; the error quotes the nearest names.
    """
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        return read_profile(path)
    if name not in known():
        raise UnknownName("machine", name, known(), hint="`aotpack machine --list` lists them")
    return parse_profile((_profiles() / f"{name}.json").read_bytes(), where=name)


#: Features that no CPU has without the other one.
_IMPLIES = {
    "avx": "sse4_1",
    "avx2": "avx",
    "avx_vnni": "avx2",
    "avx512f": "avx2",
    "avx512bw": "avx512f",
    "avx512dq": "avx512f",
    "avx512vl": "avx512f",
    "avx512_vnni": "avx512f",
    "avx512_bf16": "avx512f",
    "avx512_fp16": "avx512bw",
    "amx_int8": "amx_tile",
    "amx_bf16": "amx_tile",
    "amx_tile": "avx512f",
}


def contradiction(arch: str | None, features: Collection[str] | None) -> str | None:
    """What of a CPU cannot be true, in a few words; None if nothing is seen to be wrong."""
    has = frozenset(features or ())
    for feature, other in _IMPLIES.items():
        if feature in has and other not in has:
            return f"a CPU with {feature} has {other}"
        if feature in has and arch not in (None, "x86_64"):
            return f"no {arch} CPU has {feature}"
    return None


def normal_arch(machine: str) -> str:
    """``x86_64`` or ``aarch64`` for each of the names that systems give them."""
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())


def _profiles() -> Traversable:
    from importlib import resources

    # Beside the toolchains, for what a machine has is told in its vendors' words.
    return resources.files("aotpack.toolchains") / "machines"


def _features_of(microarchitecture: str) -> tuple[str, ...] | None:
    import archspec.cpu

    described = archspec.cpu.TARGETS.get(microarchitecture)
    return tuple(sorted(described.features)) if described else None
