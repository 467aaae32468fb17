"""What the benchmarks of the container measure on: a 75 MB transformer compiled for five targets."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import onnx

import aotpack
from aotpack.container.content import Content
from aotpack.container.reader import PackageReader
from samples.made_models import transformer

TARGETS = ("openvino-cpu-avx2", "openvino-cpu-avx512", "qnn-htp-v73", "qnn-htp-v75", "qnn-htp-v79")

_FOLDER = Path(__file__).parents[1] / ".cache" / "benchmarks"


def package() -> Path:
    """The package with `TARGETS` and the portable model; built once and kept."""
    path = _FOLDER / "transformer.aotpack"
    if not path.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        onnx.save(transformer(), _FOLDER / "transformer.onnx")
        print("building the transformer for five targets, once (about half a minute) ...", flush=True)
        # OpenVINO's EP takes Intel CPUs only; elsewhere there are three targets.
        aotpack.build(_FOLDER / "transformer.onnx", targets=TARGETS, output=path, keep_going=True)
    return path


def loose(reader: PackageReader, folder: Path) -> dict[str, list[tuple[str, Content]]]:
    """The files of all variants under `folder`, the portable variant first: target to (path in it, place)."""
    files: dict[str, list[tuple[str, Content]]] = {}
    for variant in sorted(reader.manifest.variants(), key=lambda variant: variant.target != "portable"):
        files[variant.target] = []
        for file in variant.files:
            place = folder / variant.target / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            reader.copy_file(file, place)
            files[variant.target].append((file.path, place))
    return files


def shell(command: str, folder: Path) -> None:
    """Run a line of shell in `folder`."""
    subprocess.run(["bash", "-o", "pipefail", "-ec", command], cwd=folder, check=True)


def side_by_side(
    works: dict[str, Callable[[], object]],
    *,
    rounds: int = 7,
    prepare: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each, measured in turns, so that what else the machine does falls on all alike.

    `prepare` is called before each and is not measured.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            prepare()
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in taken.items()}


@contextlib.contextmanager
def section(title: str) -> Iterator[None]:
    """A titled block of output."""
    print(f"\n{title}\n{'-' * len(title)}")
    yield
