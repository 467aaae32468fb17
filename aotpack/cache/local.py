"""Variants that were compiled on this machine because no packaged one fitted it.

Their files lie in the cache like those of any other variant. A note beside them,
``<cache>/compiled/<key>.json``, holds the variant and says where. Its key is made of the package's digest,
the component, the machine's key, so that another driver, EP or onnxruntime makes the variant stale, of the
devices and EPs that the policy took, of the shapes that were asked for, and of the libraries of custom
operators that were given.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import DecodeError

from aotpack.cache.layout import COMPILED
from aotpack.cache.notes import read_note, write_note
from aotpack.cache.variants import Cache, Held
from aotpack.common.values import Sha256, Value
from aotpack.container.reader import PackageReader
from aotpack.errors import OutputError
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Component, Variant
from aotpack.selection.policy import Policy

__all__ = ["LocalVariants"]


class _Note(Value, kw_only=True):
    #: Of the variant in the cache.
    key: Sha256
    variant: Variant


class LocalVariants:
    """The compiled variants in a cache. Any number of processes may use it at once."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def hold(
        self,
        digest: str,
        component: str,
        machine: Machine,
        policy: Policy,
        shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
        libraries: tuple[str, ...] = (),
    ) -> tuple[Variant, Held] | None:
        """The variant for this machine and its files, kept until let go of; None if none is whole."""
        path = self._path(digest, component, machine, policy, shapes, libraries)
        try:
            note = _Note.from_json(read_note(path))
        except (OSError, DecodeError):
            return None
        held = self._cache.hold_known(note.key, note.variant)
        if held is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return note.variant, held

    def keep(
        self,
        digest: str,
        component: str,
        machine: Machine,
        policy: Policy,
        built: PackageReader,
        compiled: Component,
        shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
        libraries: tuple[str, ...] = (),
    ) -> tuple[Variant, Held]:
        """Take the only variant of a component in, in place of an earlier one; nobody removes it meanwhile.

        Args:
            digest: of the package that had none that fits, and
            component: the name of its component.
            machine: this one.
            policy: by which the target was chosen.
            built: the package that was made here, and
            compiled: its component.
            shapes: that were asked for.
            libraries: sha256 of each library of custom operators that was given.

        Raises:
            OutputError: the cache cannot be written.
        """
        (variant,) = compiled.variants
        named = compiled.replace(name=component)
        path = self._path(digest, component, machine, policy, shapes, libraries)
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(self._cache.hold(built, named, variant))
            held.wait()
            note = _Note(key=held.key, variant=variant)
            try:
                write_note(self._cache.root, path, note.to_json())
            except OSError as error:
                raise OutputError(error.strerror or str(error), where=path) from None
            stack.pop_all()
        return variant, held

    def _path(
        self,
        digest: str,
        component: str,
        machine: Machine,
        policy: Policy,
        shapes: Mapping[str, tuple[int, ...]],
        libraries: tuple[str, ...],
    ) -> Path:
        eps = "any" if policy.eps is None else ",".join(sorted(policy.eps))
        said: tuple[str, ...] = (digest, component, machine.key(), ",".join(policy.device_order), eps)
        if shapes:
            said += (json.dumps(shapes, sort_keys=True),)
        if libraries:
            said += ("custom_ops", *libraries)
        key = hashlib.sha256("\n".join(said).encode()).hexdigest()
        return self._cache.root / COMPILED / f"{key}.json"
