"""A third party's toolchain that works for one target and misbehaves for all others, as real ones do.

It is found through its entry point, as any third party's: see the fixture ``troublesome``.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import psutil

from aotpack.machine import Machine
from aotpack.manifest import Variant
from aotpack.target import Target
from aotpack.toolchain.base import Compiled, RunsHere
from aotpack.toolchain.ort import OrtToolchain

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["MISBEHAVIOURS", "Troublesome"]

MISBEHAVIOURS = (
    "abort",
    "segfault",
    "hang",
    "hang-with-child",
    "eat-memory",
    "exit",
    "raise",
    "shout",
    "write-nothing",
    "write-garbage",
    "write-outside",
    "wrong-numbers",
    "abort-at-load",
    "raise-when-asked",
)


class Troublesome(OrtToolchain):
    """onnxruntime, with a different fault for each target."""

    name = "troublesome"

    def built_with(self) -> Mapping[str, str]:
        return {**super().built_with(), "troublesome": metadata.version("troublesome")}

    def targets(self) -> tuple[Target, ...]:
        return tuple(
            Target(
                name=f"trouble-{how}",
                toolchain=self.name,
                ep=self.ep,
                device="cpu",
                title=f"Nothing: {how}",
                specificity=1,
            )
            for how in ("none", "kill-the-machine", *MISBEHAVIOURS)
        )

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        if target.name == "trouble-raise-when-asked":
            raise RuntimeError("no answer")
        return "its compiler is gone" if os.environ.get("TROUBLESOME_WITHOUT_COMPILER") else None

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        if os.environ.get("TROUBLESOME_UNPLUGGED"):
            return RunsHere(None, "it is not plugged in")
        return super().how_to_run(target, machine)

    def compile(self, target: Target, model: Path, folder: Path) -> Compiled:
        print(f"troublesome: compiling for {target.name}", flush=True)
        how = target.name.removeprefix("trouble-")
        if how in ("none", "abort-at-load"):
            return super().compile(target, model, folder)
        return getattr(self, "_" + how.replace("-", "_"))(model, folder)  # type: ignore[no-any-return]

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        if variant.target == "trouble-abort-at-load":
            os.abort()
        super().add_provider(options, variant, emulate=emulate)

    def _abort(self, model: Path, folder: Path) -> Compiled:
        os.abort()

    def _kill_the_machine(self, model: Path, folder: Path) -> Compiled:
        """As a machine that goes down looks from afar: the process that does tasks for others is gone."""
        for process in psutil.Process().parents():
            if "distributed.cli.dask_worker" in process.cmdline():
                process.kill()
                return self._hang(model, folder)
        raise AssertionError("no worker of a cluster does this")

    def _segfault(self, model: Path, folder: Path) -> Compiled:
        ctypes.string_at(0)
        raise AssertionError("unreachable")

    def _hang(self, model: Path, folder: Path) -> Compiled:
        while True:
            time.sleep(1)

    def _hang_with_child(self, model: Path, folder: Path) -> Compiled:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        print(f"child {child.pid}", flush=True)
        return self._hang(model, folder)

    def _eat_memory(self, model: Path, folder: Path) -> Compiled:
        # Far above the test's limit and far below what a machine has.
        eaten = []
        for _ in range(100):
            eaten.append(bytearray(os.urandom(1024)) * (16 * 1024))
            time.sleep(0.02)
        raise MemoryError(f"nobody stopped it at {len(eaten)} times 16 MiB")

    def _exit(self, model: Path, folder: Path) -> Compiled:
        os._exit(0)

    def _raise(self, model: Path, folder: Path) -> Compiled:
        raise RuntimeError("the first line\nand the second")

    def _shout(self, model: Path, folder: Path) -> Compiled:
        for number in range(200_000):
            print(f"{number} shouted on the standard output, at some length")
        raise RuntimeError("hoarse")

    def _write_nothing(self, model: Path, folder: Path) -> Compiled:
        return Compiled(files=(("model.onnx", folder / "model.onnx"),), ep_string=None)

    def _write_garbage(self, model: Path, folder: Path) -> Compiled:
        (folder / "model.onnx").write_bytes(os.urandom(4096))
        return Compiled(files=(("model.onnx", folder / "model.onnx"),), ep_string=None)

    def _write_outside(self, model: Path, folder: Path) -> Compiled:
        onnx.save(onnx.load(model), folder / "model.onnx")
        return Compiled(files=(("../../model.onnx", folder / "model.onnx"),), ep_string=None)

    def _wrong_numbers(self, model: Path, folder: Path) -> Compiled:
        changed = onnx.load(model)
        for tensor in changed.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                array = 2 * onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        onnx.save(changed, folder / "model.onnx")
        return Compiled(files=(("model.onnx", folder / "model.onnx"),), ep_string=None)
