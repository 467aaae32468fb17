"""What to compile for, and the catalogue of known hardware (catalog.toml).

A target is data: which toolchain, which EP and device, which provider options, and the environment
that the compiling process needs. A third party's toolchain brings targets of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import ValidationError

from aotpack.common.values import Name, Value
from aotpack.errors import UnknownName, UsageError
from aotpack.manifest.values import Requirements

__all__ = [
    "PORTABLE",
    "Precision",
    "Target",
    "catalogue",
    "find",
    "read_catalogue",
]

#: The target whose variant is the untouched ONNX; there by default and last in every order.
PORTABLE = "portable"

#: What an EP computes in.
Precision = Literal["f32", "bf16", "f16"]


class Target(Value, kw_only=True):
    """One thing to compile for."""

    name: Name
    #: The name of the toolchain that compiles for it.
    toolchain: Name
    ep: str
    device: Literal["cpu", "gpu", "npu"]
    #: One line for people: which hardware this is.
    title: str
    #: Other names for it, such as those that the hardware is sold under.
    aliases: tuple[Name, ...] = ()
    #: What the EP computes in: decides the default tolerance. None: as the model says.
    precision: Precision | None = None
    #: Among variants that fit a machine equally well the higher one is taken.
    specificity: int = 0
    #: Generations of the hardware in its vendor's numbers, for toolchains that are told so by no option.
    architectures: tuple[str, ...] = ()
    #: The target for all of a generation of which this one is a single chip.
    generation: Name | None = None
    #: It takes quantised (QDQ) models alone.
    integers_only: bool = False
    #: Its blobs hold the weights that the components of a package have in common once.
    shares_weights: bool = False
    #: Given to the EP when compiling and again when loading.
    provider_options: dict[str, str] = {}
    #: Set in the process that compiles, and in the one that emulates this target here.
    environment: dict[str, str] = {}
    requires: Requirements = Requirements()


def read_catalogue(text: str, *, where: str) -> tuple[Target, ...]:
    """The targets in a TOML text with one ``[[target]]`` table each.

    A table that names its ``generation`` has what that one has and says only what is different.

    Raises:
        UsageError: it is no TOML, or a table is not a target.
    """
    import tomllib

    try:
        tables: list[dict[str, Any]] = tomllib.loads(text)["target"]
        by_name = {table.get("name"): table for table in tables}
        return tuple(Target.from_builtins(_complete(table, by_name)) for table in tables)
    except (tomllib.TOMLDecodeError, KeyError, ValidationError) as error:
        raise UsageError("is not a catalogue of targets", where=where, found=error) from None


def _complete(table: dict[str, Any], by_name: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    if "generation" not in table:
        return table
    whole = by_name[table["generation"]]
    options = {**whole.get("provider_options", {}), **table.get("provider_options", {})}
    return {**whole, "aliases": (), **table, "provider_options": options}


@functools.cache
def _built_in() -> tuple[Target, ...]:
    from importlib import resources

    text = resources.files("aotpack.targets").joinpath("catalog.toml").read_text(encoding="utf-8")
    return read_catalogue(text, where="catalog.toml")


def catalogue(extra: Iterable[Target] = ()) -> dict[str, Target]:
    """All targets by name: the built-in ones and then `extra`, in order."""
    return {target.name: target for target in (*_built_in(), *extra)}


def find(name: str, extra: Iterable[Target] = ()) -> Target:
    """The target called `name`, or sold under that name.

    Raises:
        UnknownName: there is none; the error quotes the nearest names.
    """
    targets = catalogue(extra)
    by_name = {alias: target for target in targets.values() for alias in target.aliases} | targets
    if name not in by_name:
        raise UnknownName("target", name, by_name, hint="`aotpack targets` lists them")
    return by_name[name]
