"""What `aotpack tune` measured on this machine, kept in the cache.

::

    <cache>/tuning/<machine key>/<package digest>-<component>.json

The machine's key changes with a driver, an EP or onnxruntime, so what was measured before is not found again.
Measuring itself is `aotpack.builder.tune`'s affair; this is what choosing reads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from aotpack.cache.layout import TUNING, not_written
from aotpack.cache.notes import read_note, write_note
from aotpack.common.values import Count, Sha256, Text, Value, parse_value
from aotpack.machine.profile import Machine
from aotpack.manifest.values import MAX_VARIANTS

__all__ = ["Measurement", "Tuning", "TuningStore"]


#: Bytes of a file of measurements; a variant takes some hundred.
MAX_TUNING_SIZE = 16 * 1024 * 1024


class Measurement(Value, kw_only=True):
    """One variant, run in a process of its own."""

    variant: Text
    target: Text
    #: Why it does not run, one sentence; None if it does.
    failure: Text | None = None
    #: From the files on disk to the session.
    load_seconds: float | None = None
    first_run_seconds: float | None = None
    #: The median of the runs after the first.
    run_seconds: float | None = None
    runs: Count = 0
    #: Highest resident memory of the process, in bytes.
    peak_memory: Count | None = None


class Tuning(Value, kw_only=True):
    """All measurements of one component on one machine."""

    package: Text
    #: sha256 of the package's manifest.
    digest: Sha256
    component: Text
    #: `Machine.key` of the machine.
    machine: Sha256
    measurements: Annotated[tuple[Measurement, ...], Meta(max_length=MAX_VARIANTS)]


class TuningStore:
    """The measurements in a cache's folder."""

    def __init__(self, cache_root: Path) -> None:
        self._root = cache_root

    def read(self, digest: str, component: str, machine: Machine) -> Mapping[str, Measurement]:
        """Measurements by variant id; empty if there are none, or none that can be read."""
        path = self._path(digest, component, machine.key())
        with contextlib.suppress(OSError, ValueError):
            tuning = parse_value(Tuning, read_note(path, MAX_TUNING_SIZE), limit=MAX_TUNING_SIZE)
            os.utime(path)
            return {item.variant: item for item in tuning.measurements}
        return {}

    def write(self, tuning: Tuning) -> Path:
        """Keep measurements in place of earlier ones.

        Raises:
            OutputError: the cache cannot be written.
        """
        path = self._path(tuning.digest, tuning.component, tuning.machine)
        try:
            write_note(self._root, path, tuning.to_json(indent=2) + "\n")
        except OSError as error:
            raise not_written(error, self._root) from None
        return path

    def _path(self, digest: str, component: str, machine: str) -> Path:
        return self._root / TUNING / machine / f"{digest}-{component}.json"
