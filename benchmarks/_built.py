"""What the benchmarks of the container measure on: a 75 MB transformer compiled for five targets."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

import onnx

import aotpack
from aotpack.container.content import Content, StoredFile
from aotpack.container.reader import PackageReader
from aotpack.container.writer import write
from benchmarks._exported import exported
from samples.made_models import transformer

#: Target to the value of OpenVINO's variable that compiles for it.
_OPENVINO = {"openvino-cpu-avx2": "AVX2", "openvino-cpu-avx512": "AVX512_CORE"}

TARGETS = (*_OPENVINO, "qnn-htp-v73", "qnn-htp-v75", "qnn-htp-v79")

_FOLDER = Path(__file__).parents[1] / ".cache" / "benchmarks"


def package() -> Path:
    """The package with `TARGETS` and the portable model; built once and kept."""
    path = _FOLDER / "transformer.aotpack"
    if not path.exists():
        _FOLDER.mkdir(parents=True, exist_ok=True)
        onnx.save(transformer(), _FOLDER / "transformer.onnx")
        print("building the transformer for five targets, once (about half a minute) ...", flush=True)
        model, whole = _FOLDER / "transformer.onnx", _FOLDER / "built.aotpack"
        report = aotpack.build(model, targets=TARGETS, output=whole, keep_going=True)
        built = {row.target for row in report.rows if row.state == "built"}
        # OpenVINO's EP takes Intel CPUs only.
        missing = {target: limit for target, limit in _OPENVINO.items() if target not in built}
        _completed(whole, exported(model, missing, _FOLDER), path)
        whole.unlink()
    return path


def _completed(package: Path, added: Mapping[str, tuple[Path, Path]], output: Path) -> None:
    """Write the package to `output` once more, with the files of further targets."""
    with PackageReader.open(package) as reader:
        (component,) = reader.manifest.components
        like = next(variant for variant in component.variants if variant.target.startswith("qnn"))
        variants = list(component.variants)
        contents: dict[tuple[str, str], list[tuple[str, Content]]] = {
            ("main", variant.id): [(file.path, StoredFile(reader, file)) for file in variant.files]
            for variant in variants
        }
        for target, files in added.items():
            own = {"toolchain": "openvino", "device": "cpu", "numerics": None}
            variants.append(like.replace(id=target, target=target, **own))
            contents["main", target] = [(file.name, file) for file in files]
        component = component.replace(variants=tuple(variants))
        write(output, reader.manifest.replace(components=(component,)), contents)


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
