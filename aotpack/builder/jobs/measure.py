"""Time one variant and weigh its process; runs in a worker of its own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from aotpack.builder.numerics.inputs import find_inputs
from aotpack.manifest.values import TensorInfo, Variant
from aotpack.runtime.session import create
from aotpack.runtime.tuning import Measurement
from aotpack.toolchains import toolchains

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["measure"]


def measure(
    variant: Variant,
    model: Path,
    inputs: tuple[TensorInfo, ...],
    *,
    runs: int,
    seconds: float,
    emulate: bool,
    custom_ops: Sequence[Path] = (),
) -> Measurement:
    """Load a variant and run it again and again.

    Args:
        variant: what the files are.
        model: the ONNX file, its sidecars beside it.
        inputs: what it is run on; sizes that are not fixed become 1.
        runs: after the first one, at most.
        seconds: after which no further run is started, once there were three.
        emulate: use the vendor's emulator where there is no device.
        custom_ops: libraries of its custom operators.
    """
    started = time.perf_counter()
    toolchain = toolchains()[variant.toolchain]
    session = create(variant, model, toolchain, emulate=emulate, custom_ops=custom_ops)
    loaded = time.perf_counter() - started
    feeds, first = _first_run(session, inputs)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < runs and (len(times) < 3 or time.perf_counter() < end):
        started = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - started)
    return Measurement(
        variant=variant.id,
        target=variant.target,
        load_seconds=loaded,
        first_run_seconds=first,
        run_seconds=statistics.median(times),
        runs=len(times),
        peak_memory=_peak_memory(),
    )


def _first_run(
    session: onnxruntime.InferenceSession, inputs: tuple[TensorInfo, ...]
) -> tuple[dict[str, Any], float]:
    """The inputs that it is run on, and how long the first run on them took, in seconds."""
    known = {value.name for value in session.get_inputs()}
    seconds: list[float] = []

    def run(feeds: Mapping[str, Any]) -> list[Any]:
        started = time.perf_counter()
        outputs: list[Any] = session.run(None, dict(feeds))
        seconds.append(time.perf_counter() - started)
        return outputs

    found = find_inputs(run, [info for info in inputs if info.name in known])
    return dict(found.feeds), seconds[0]


def _peak_memory() -> int:
    """Highest resident memory of this process, in bytes."""
    try:
        import resource
    except ImportError:
        return int(psutil.Process().memory_info().peak_wset)
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, except on macOS.
    return peak if sys.platform == "darwin" else peak * 1024
