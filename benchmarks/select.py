"""Choosing among 1,000 variants, beside onnxruntime's own model package on the same set in the same run.

``python -m benchmarks.select [VARIANTS]``. Three sets: compatibility strings that repeat, as those of one
toolchain's release do; strings that are all different in what the EP does not compare, its own version; and
strings that are all of different releases of the runtime, where nothing can be remembered, and which no
package has. Medians of runs in turns; every ratio is ours to onnxruntime's, so 1.00 is as fast.

Where the OpenVINO EP lists no device, on CPUs that are not Intel's, both choose among variants of
onnxruntime's own CPU EP, which has no check to be asked; what another machine gets is the same set as ever.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort

from aotpack.machine.profile import find_machine
from aotpack.manifest.parsing import parse
from aotpack.manifest.values import (
    Compatibility,
    Component,
    File,
    Manifest,
    Requirements,
    Segment,
    SessionSettings,
    Source,
    Variant,
)
from aotpack.runtime.probing import probe
from aotpack.selection.select import select
from aotpack.toolchains import toolchains
from aotpack.toolchains.openvino.string import ISA_CLASSES, OpenVinoString, isa_class, parsed, string_for
from aotpack.toolchains.openvino.toolchain import OpenVinoToolchain
from aotpack.toolchains.plugin import PluginToolchain
from samples.made_models import cnn

RUNS = 15


def strings(count: int, *, versions: bool = False, releases: bool = False) -> list[str]:
    """Compatibility strings of every class, the one that fits this machine among them.

    Args:
        count: how many.
        versions: each names another version of the EP.
        releases: each of them, the first of a class left aside, names another release of the runtime.
    """
    release = OpenVinoToolchain().runtime_details()["openvino"]
    written = []
    for index in range(count):
        another = f"2020.{index}" if releases and index >= len(ISA_CLASSES) else release
        keys = json.loads(string_for(another, ISA_CLASSES[index % len(ISA_CLASSES)]))
        version = f"1.8.1+{index:x}" if versions else "1.8.1"
        ordered = {"ovep_compat_ver": keys.pop("ovep_compat_ver"), "ovep_ver": version, **keys}
        written.append(json.dumps(ordered, separators=(",", ":")))
    return written


def component_of(written: list[str], toolchain: str) -> Component:
    """A component with a variant of that toolchain for each string, as a manifest gives it back."""
    segment = Segment(offset=65536, stored=1, size=1, codec="raw", sha256="a" * 64, xxh3="b" * 32)
    variants = tuple(
        Variant(
            id=f"variant-{index}",
            target=f"target-{index}",
            toolchain=toolchain,
            ep=toolchains()[toolchain].ep,
            device="cpu",
            compatibility=Compatibility(
                ep_string=text, requires=Requirements(arch="x86_64", isa=("sse4_1",), onnxruntime=">=1.32")
            ),
            session=SessionSettings(config={"session.disable_model_compile": "1"}),
            files=(File(path="model.onnx", size=1, sha256="a" * 64, segments=(0,)),),
        )
        for index, text in enumerate(written)
    )
    source = Source(sha256="a" * 64, size=1, opsets={"": 17})
    component = Component(name="main", source=source, inputs=(), outputs=(), variants=variants)
    return parse(
        Manifest(name="b", components=(component,), segments=(segment,)).canonical_json()
    ).components[0]


def ort_package(folder: Path, written: list[str], toolchain: str) -> Path:
    """The same set as onnxruntime's model package."""
    folder.mkdir()
    onnx.save(cnn(layers=1, channels=2, size=8), folder / "model.onnx")
    variants = {
        f"variant-{index}": {
            "ep": toolchains()[toolchain].ep,
            "device": "cpu",
            "compatibility_string": text,
            "executor_info": {"ort": {"model_file": "model.onnx"}},
        }
        for index, text in enumerate(written)
    }
    manifest = {"schema_version": 1, "components": {"main": {"variants": variants}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def forget() -> None:
    """Let the toolchains forget what EPs have answered."""
    for toolchain in toolchains().values():
        if isinstance(toolchain, PluginToolchain):
            toolchain.forget()


def median(*calls: Callable[[], object]) -> list[float]:
    """Milliseconds of each call, taken in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(RUNS):
        for call, seen in zip(calls, times, strict=True):
            forget()
            started = time.perf_counter()
            call()
            seen.append((time.perf_counter() - started) * 1e3)
    return [statistics.median(seen) for seen in times]


def main(count: int) -> None:
    """Print the table."""
    machine, foreign, rules = probe(), find_machine("avx2-desktop"), toolchains()
    own = isa_class(machine.cpu.features or ())
    openvino = rules["openvino"]
    assert isinstance(openvino, OpenVinoToolchain)
    devices, options = openvino.devices()[:1], ort.SessionOptions()
    toolchain = "openvino" if devices else "ort"
    options.add_provider_for_devices(devices or ort.get_ep_devices()[:1], {})
    package_options = ort.ModelPackageOptions(options)
    print(f"{count} variants for {rules[toolchain].ep}; median of {RUNS}, ms; of class {own and own.cap}")
    print(f"{'strings':<10}{'onnxruntime':>13}{'here':>8}{'ratio':>7}{'elsewhere':>11}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as scratch:
        sets = {
            "repeated": strings(count),
            "versions": strings(count, versions=True),
            "releases": strings(count, releases=True),
        }
        for name, written in sets.items():
            mine, theirs = component_of(written, toolchain), component_of(written, "openvino")
            context = ort.ModelPackageContext(str(ort_package(Path(scratch) / name, written, toolchain)))

            def by_ort(context: ort.ModelPackageContext = context) -> str:
                selected = context.select_component("main", package_options)
                chosen: str = selected.get_selected_variant_name()
                return chosen

            def here(component: Component = mine) -> str:
                chosen = select(component, machine, rules, here=True).chosen
                assert chosen is not None
                return chosen.id

            def elsewhere(component: Component = theirs) -> str:
                chosen = select(component, foreign, rules, here=False).chosen
                assert chosen is not None
                return chosen.id

            # Of many that fit alike each takes one.
            assert comparable(written, by_ort()) == comparable(written, here())
            ort_ms, here_ms, there_ms = median(by_ort, here, elsewhere)
            ours = f"{here_ms:>8.2f}{here_ms / ort_ms:>7.2f}{there_ms:>11.2f}{there_ms / ort_ms:>7.2f}"
            print(f"{name:<10}{ort_ms:>13.2f}{ours}")


def comparable(written: list[str], variant: str) -> OpenVinoString | None:
    """What the EP compares of a variant's string."""
    return parsed(written[int(variant.removeprefix("variant-"))])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("variants", nargs="?", type=int, default=1000, help="how many; 1000 by default")
    main(parser.parse_args().variants)
    sys.stdout.flush()
    import os

    # The EP's library aborts when the interpreter tears it down after a select of onnxruntime's.
    os._exit(0)
