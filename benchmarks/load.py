"""Load and selection, as ratios of what ONNX Runtime takes by itself, side by side in one run.

    python -m benchmarks.load [--rounds 21]

Both ways of a row take turns, so that what else the machine does hits both alike; printed are medians. The
package is in the cache before the first measurement, as it is on every start of a program but the first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnxruntime as ort

import aotpack
from aotpack.container.content import Content, StoredFile
from aotpack.container.reader import PackageReader
from aotpack.container.writer import write
from aotpack.manifest.values import Variant
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from aotpack.toolchains.plugin import PluginToolchain
from samples.made_models import transformer
from samples.real_models import fetch

#: The best that this machine can compile for is what it loads; the others are to choose from.
TARGETS = ("openvino-cpu-amx", "openvino-cpu-avx512", "openvino-cpu-avx2", "ort-cpu", "qnn-htp-v73")
COUNTS = (2, 100, 1000)

#: Of new processes: a program that is installed has its bytecode on the disk.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def compare(what: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> None:
    """Print a row: the median of each way, and the median of the ratios of each round.

    The two of a round follow each other, so that their ratio holds on a machine that others use too.
    """
    seconds: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for number in range(rounds + 1):
        # Neither way is always the one that finds the caches of the CPU warm.
        for way in (ours, theirs) if number % 2 else (theirs, ours):
            started = time.perf_counter()
            way()
            if number:  # the first round does not count
                seconds[way].append(time.perf_counter() - started)
    ratios = (one / other for one, other in zip(seconds[ours], seconds[theirs], strict=True))
    medians = (statistics.median(seconds[way]) for way in (ours, theirs))
    row(what, *(f"{median * 1e3:.2f} ms" for median in medians), f"{statistics.median(ratios):.2f}")


def row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def build(model: Path, output: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A package for what this machine can compile for, of the classes above."""
    known, here = toolchains(), aotpack.probe()
    targets = [
        target.name
        for target in map(find, TARGETS)
        if known[target.toolchain].why_not_compile(target, here) is None
    ]
    aotpack.build(model, targets=targets, output=output, shapes=shapes)
    return output


def by_ort_alone(variant: Variant, model: Path) -> Callable[[], object]:
    """What a program does that knows its files, its EP and its options."""
    devices = [device for device in ort.get_ep_devices() if device.ep_name == variant.ep][:1]

    def session() -> ort.InferenceSession:
        options = ort.SessionOptions()
        if variant.session.graph_optimization == "disabled":
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if devices and variant.ep != "CPUExecutionProvider":
            options.add_provider_for_devices(devices, variant.session.provider_options)
        for key, value in variant.session.config.items():
            options.add_session_config_entry(key, value)
        return ort.InferenceSession(model, options, enable_fallback=0)

    return session


def measure_load(name: str, package: Path, folder: Path, rounds: int) -> None:
    """A session by aotpack, and by ORT on the very files that aotpack chose."""
    with aotpack.open(package) as opened:
        chosen = opened.select().chosen
        assert chosen is not None
        variant = chosen.variant
        opened.extract(variant.id, folder)
    aotpack.load(package)  # registers the EP, for both
    alone = by_ort_alone(variant, folder / variant.files[0].path)
    compare(f"load {name} ({variant.size / 1e6:.1f} MB)", lambda: aotpack.load(package), alone, rounds)


FRESH = {
    "aotpack": "import sys, os, aotpack; aotpack.load(sys.argv[1]); os._exit(0)",
    "loose": """
import sys, os, json, onnxruntime as ort
from importlib import import_module
ep, module, options, config, optimization = json.loads(sys.argv[3])
session = ort.SessionOptions()
if optimization == "disabled":
    session.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
if module is not None:
    ort.register_execution_provider_library(ep, import_module(module).get_library_path())
    session.add_provider_for_devices([d for d in ort.get_ep_devices() if d.ep_name == ep][:1], options)
for key, value in config.items():
    session.add_session_config_entry(key, value)
ort.InferenceSession(sys.argv[2], session, enable_fallback=0)
os._exit(0)
""",
}


def measure_fresh(name: str, package: Path, folder: Path, rounds: int) -> None:
    """The same in a process of its own each time: interpreter, imports, registering the EP and all."""
    with aotpack.open(package) as opened:
        chosen = opened.select().chosen
        assert chosen is not None
        variant = chosen.variant
    toolchain = toolchains()[variant.toolchain]
    module = toolchain.module if isinstance(toolchain, PluginToolchain) else None
    settings = variant.session
    options = (settings.provider_options, settings.config, settings.graph_optimization)
    how = json.dumps([variant.ep, module, *options])
    model = folder / variant.files[0].path

    def process(code: str) -> Callable[[], object]:
        command = [sys.executable, "-c", code, str(package), str(model), how]
        return lambda: subprocess.run(command, check=True, env=ENVIRONMENT)

    compare(f"load {name}, a new process each", process(FRESH["aotpack"]), process(FRESH["loose"]), rounds)


def many(package: Path, output: Path, count: int) -> Path:
    """A package of `count` variants: those of `package` again and again, those that fit here last."""
    with aotpack.open(package) as opened:
        selection = opened.select()
    # One fits and is the last; the others are of EPs that refuse them.
    compiled = [
        candidate.variant
        for candidate in reversed(selection.candidates)
        if not candidate.accepted or candidate == selection.chosen
    ]
    with PackageReader.open(package) as reader:
        (component,) = reader.manifest.components
        contents: dict[tuple[str, str], list[tuple[str, Content]]] = {}
        variants: list[Variant] = []
        for number in range(count):
            # The one that fits is there once, and last: no one stops early at it.
            source = compiled[-1] if number == count - 1 else compiled[number % (len(compiled) - 1)]
            variant = source.replace(id=f"v{number}")
            variants.append(variant)
            contents[component.name, variant.id] = [
                (file.path, StoredFile(reader, file)) for file in source.files
            ]
        component = component.replace(variants=tuple(variants))
        write(output, reader.manifest.replace(components=(component,)), contents)
    return output


def model_package(package: Path, root: Path) -> Path:
    """ORT's own form of the same set: a folder for each variant beside one manifest."""
    entries = {}
    with aotpack.open(package) as opened:
        component = opened.component()
        for variant in component.variants:
            folder = root / variant.id
            folder.mkdir(parents=True)
            for file in variant.files:
                # Selection opens none of them.
                (folder / file.path).touch()
            entry = {
                "variant_directory": variant.id,
                "ep": variant.ep,
                "device": variant.device,
                "compatibility_string": variant.compatibility.ep_string,
                "executor_info": {"ort": {"model_file": variant.files[0].path}},
            }
            entries[variant.id] = {key: value for key, value in entry.items() if value is not None}
    manifest = {"schema_version": "1.0", "components": {component.name: {"variants": entries}}}
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return root


def measure_select(count: int, package: Path, folder: Path, rounds: int) -> None:
    """The package's only variant that fits here, found by aotpack and by ORT."""
    ours = many(package, folder / f"{count}.aotpack", count)
    theirs = model_package(ours, folder / f"{count}.ort")
    with aotpack.open(ours) as opened:
        chosen = opened.select().chosen
        assert chosen is not None
        options = ort.SessionOptions()
        toolchains()[chosen.variant.toolchain].add_provider(options, chosen.variant, emulate=False)

    def by_aotpack() -> str:
        with aotpack.open(ours) as opened:
            best = opened.select().chosen
            assert best is not None
            return best.id

    def by_ort() -> str:
        context = ort.ModelPackageContext(str(theirs))
        selected = context.select_component("main", ort.ModelPackageOptions(options))
        name: str = selected.get_selected_variant_name()
        return name

    assert by_aotpack() == by_ort() == f"v{count - 1}"
    compare(f"open and select, {count} variants", by_aotpack, by_ort, rounds)


def import_times(module: str, rounds: int) -> float:
    """Median of what ``-X importtime`` says, in seconds."""

    def once() -> Iterator[float]:
        for _ in range(rounds):
            done = subprocess.run(
                [sys.executable, "-X", "importtime", "-c", f"import {module}"],
                capture_output=True,
                text=True,
                check=True,
                env=ENVIRONMENT,
            )
            found = re.findall(rf"\|\s+(\d+) \| {module}$", done.stderr, re.MULTILINE)
            yield int(found[-1]) / 1e6

    return statistics.median(once())


def main() -> None:
    """Build what is measured, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=21, help="measurements of each way")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["AOTPACK_CACHE"] = str(folder / "cache")
        large = folder / "transformer.onnx"
        onnx.save(transformer(), large)
        silero = build(fetch("silero_vad_16k_sequence"), folder / "silero.aotpack", {"input": (1, 576)})
        packages = {"transformer": build(large, folder / "transformer.aotpack", {}), "silero-vad": silero}
        row("what", "aotpack", "ONNX Runtime alone", "ratio")
        row("---", "---:", "---:", "---:")
        for name, package in packages.items():
            measure_load(name, package, folder / name, rounds)
        for name, package in packages.items():
            measure_fresh(name, package, folder / name, rounds)
        for count in COUNTS:
            measure_select(count, silero, folder, rounds)
        ours, theirs = import_times("aotpack", rounds), import_times("onnxruntime", rounds)
        row("import", f"{ours * 1e3:.2f} ms", f"{theirs * 1e3:.2f} ms", f"{ours / theirs:.2f}")


if __name__ == "__main__":
    main()
