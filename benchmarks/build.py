"""Building: ``python -m benchmarks.build [again] [overhead] [parallel] [every]``, by default all four.

``every`` builds samples/every_target.toml, in a minute or two, with WebGPU where its EP finds a device.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from aotpack.builder.build import build_spec, one_model
from aotpack.builder.report import BuildReport, Row
from aotpack.builder.spec import BuildSpec
from aotpack.builder.spec_file import read_build_file
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import PORTABLE, catalogue, find
from aotpack.toolchains import toolchains
from benchmarks._built import section
from samples.every_target import lay_out
from samples.real_models import fetch

SHAPES = {"input": (1, 576)}
ROUNDS = 5

#: A second or two each, in one thread, and none of it an emulator's, whose threads wait for one another.
LIGHT = ("tensorrt-rtx-sm86", "tensorrt-rtx-sm89", "tensorrt-rtx-sm120", "tensorrt-rtx-sm121")

#: Whose hardware the targets of a toolchain are; of a plain CPU and of any GPU, whose software.
VENDORS = {
    "ort": "Microsoft",
    "openvino": "Intel",
    "qnn": "Qualcomm",
    "tensorrt-rtx": "NVIDIA",
    "webgpu": "WebGPU",
}


def compilable() -> list[str]:
    """Targets that this machine can compile for."""
    machine, known = probe(), toolchains()
    return [
        target.name
        for target in catalogue().values()
        if target.name != PORTABLE and known[target.toolchain].why_not_compile(target, machine) is None
    ]


def silero(output: Path, targets: Sequence[str], **settings: Any) -> BuildSpec:
    """silero-vad for some targets."""
    model = fetch("silero_vad_16k_sequence")
    return one_model(model, targets=targets, output=output, shapes=SHAPES, **settings)


def again(folder: Path) -> None:
    """A build of ten targets of which nothing has changed, by the command line."""
    targets = [name for name in compilable() if name != "webgpu" and find(name).generation is None][:10]
    command = [sys.executable, "-m", "aotpack", "build", str(fetch("silero_vad_16k_sequence"))]
    command += ["-o", str(folder / "again.aotpack"), "--shape", "input=1,576"]
    command += [f"--target={name}" for name in targets]
    taken = []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    print(f"{len(targets)} targets: {', '.join(targets)}")
    print(f"first {taken[0]:.2f} s, unchanged {min(taken[1:]):.2f} s (least of {ROUNDS}; asked: 1 s)")


def overhead(folder: Path) -> None:
    """What a job takes beside the vendor's own work: processes, requests, files; and the vendor's library."""
    targets = [
        name
        for name in compilable()
        if name != "webgpu" and find(name).generation is None and not find(name).name.endswith("-rtx")
    ]
    rounds = [
        build_spec(silero(folder / "overhead.aotpack", targets, reuse=False, portable=False, jobs=1))
        for _ in range(ROUNDS)
    ]
    print(
        f"{'target':<26}{'compile':>9}{'check':>8}{'library':>9}{'overhead':>10}   (medians of {ROUNDS}, s)"
    )
    by_target = zip(*(report.rows for report in rounds), strict=True)
    for rows in by_target:
        told = [
            median(map(of, rows))
            for of in (_compiling, lambda row: row.check_seconds, lambda row: row.load_seconds, _beside)
        ]
        compiled, checked, loaded, beside = told
        mark = "" if loaded + beside <= 0.6 else "  more than asked"
        print(f"{rows[0].target:<26}{compiled:>9.2f}{checked:>8.2f}{loaded:>9.2f}{beside:>10.2f}{mark}")
    print("asked: library and overhead together at most 0.6 s a job")


def _compiling(row: Row) -> float:
    return row.compile_seconds or 0.0


def _beside(row: Row) -> float:
    return row.seconds - _compiling(row) - row.check_seconds - row.load_seconds


def parallel(folder: Path) -> None:
    """Four light jobs one at a time and two at a time, in turns."""
    model = fetch("light_resnet50")
    taken: dict[int, list[float]] = {1: [], 2: []}
    counted: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for jobs in taken:
            spec = one_model(
                model,
                targets=LIGHT,
                output=folder / "parallel.aotpack",
                reuse=False,
                portable=False,
                jobs=jobs,
            )
            taken[jobs].append(build_spec(spec).seconds)
            counted[jobs].append(_count(jobs))
    one, two = min(taken[1]), min(taken[2])
    print(f"{one:.2f} s one at a time, {two:.2f} s two at a time on {os.cpu_count()} cores: {one / two:.2f}")
    print(f"(asked: 1.6; four processes that only count: {min(counted[1]) / min(counted[2]):.2f})")


def _count(at_once: int) -> float:
    """Seconds that four processes take to count: what the cores of this machine, now, give two at a time."""
    command = [sys.executable, "-c", "for _ in range(20_000_000): pass"]
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True), range(4)))
    return time.perf_counter() - started


def every(folder: Path) -> None:
    """All that can be compiled for here out of one build file, as a table of Markdown."""
    file = lay_out(folder / "every")
    report = build_spec(read_build_file(file), keep_going=True)
    (folder / "every" / "report.json").write_text(report.to_json(indent=2), encoding="utf-8")
    print("| target | hardware | model | nodes | error | ran on | compatibility string |")
    print("| --- | --- | --- | ---: | ---: | --- | --- |")
    kinds: dict[str, str] = {}
    for row in report.rows:
        if row.state == "built" and row.target != PORTABLE:
            print(_line(row))
            if "+" not in row.target and row.target != "tensorrt-rtx":
                kinds[row.target] = VENDORS[find(row.target).toolchain]
    vendors = Counter(kinds.values())
    told = ", ".join(f"{vendor} {count}" for vendor, count in vendors.items())
    print(f"\n{len(kinds)} kinds of hardware of {len(vendors)} vendors, sets left out: {told}")
    print(f"{_package(report)}; failed: {', '.join(row.target for row in report.failed) or 'none'}")


def _line(row: Row) -> str:
    coverage, numerics = row.coverage, row.numerics
    assert coverage is not None
    text = row.ep_string or ""
    cells = [
        f"`{row.target}`",
        find(row.target).title if row.target in catalogue() else "several of them",
        row.component,
        f"{coverage.compiled}/{coverage.nodes}",
        numerics.error_text if numerics else "",
        numerics.ran_on if numerics else "not run",
        f"`{text if len(text) <= 48 else text[:47] + '…'}`" if text else "none",
    ]
    return f"| {' | '.join(cells)} |"


def _package(report: BuildReport) -> str:
    files = sum(row.size or 0 for row in report.rows)
    return f"{(report.size or 0) / 1e6:.1f} MB of {files / 1e6:.1f} MB of files, {report.seconds:.0f} s"


SECTIONS: dict[str, Callable[[Path], None]] = {
    "again": again,
    "overhead": overhead,
    "parallel": parallel,
    "every": every,
}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("section", nargs="*", help=f"{', '.join(SECTIONS)}; by default all")
    names: list[str] = parser.parse_args().section
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["AOTPACK_CACHE"] = str(folder / "cache")
        for name in names or SECTIONS:
            title = (SECTIONS[name].__doc__ or "").rstrip(".")
            with section(title):
                SECTIONS[name](folder)


if __name__ == "__main__":
    main()
