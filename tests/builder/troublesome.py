"""A third party's toolchain that works for one target and misbehaves for all others, as real ones do.

It is found through its entry point, as any third party's: see the fixture ``troublesome``.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import psutil
from onnx import helper

from aotpack.machine.profile import Machine
from aotpack.manifest.values import Variant
from aotpack.targets.catalogue import Target
from aotpack.toolchains.base import Compiled, RunsHere
from aotpack.toolchains.ort.toolchain import OrtToolchain

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["HOSTILE", "MISBEHAVIOURS", "Troublesome"]

#: What attacks the process that waits for it, or the user's files.
HOSTILE = (
    "fifo-for-a-result",
    "fifo-for-a-log",
    "stop-the-server",
    "kill-the-server",
    "sparse-file",
    "daemon-eats-memory",
    "leave-a-daemon",
    "symbolic-link",
    "linked-folder",
    "hard-link",
    "file-outside",
    "name-a-file-of-others",
    "many-files",
    "many-operators",
    "case-twins",
    "nested-paths",
    "long-string",
    "surrogate-string",
    "wrong-types",
    "change-the-model",
    "remove-the-model",
    "remove-its-folder",
    "print-without-end",
    "negative-difference",
    "secrets",
)

MISBEHAVIOURS = (
    *HOSTILE,
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

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        print(f"troublesome: compiling for {target.name}", flush=True)
        how = target.name.removeprefix("trouble-")
        if how in ("none", "abort-at-load", "negative-difference"):
            return super().compile(target, model, folder)
        return getattr(self, "_" + how.replace("-", "_"))(model, folder)

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        if variant.target == "trouble-abort-at-load":
            os.abort()
        if variant.target == "trouble-negative-difference":
            Path("result.json").write_text('{"max_abs": -1.0, "difference": -1.0}', encoding="utf-8")
            os._exit(0)
        if variant.target == "trouble-name-a-file-of-others":
            raise RuntimeError("an EP has seen it")
        super().add_provider(options, variant, emulate=emulate)

    def _fifo_for_a_result(self, model: Path, folder: Path) -> Compiled:
        os.mkfifo("result.json")
        os._exit(0)

    def _fifo_for_a_log(self, model: Path, folder: Path) -> Compiled:
        Path("log.txt").unlink()
        os.mkfifo("log.txt")
        os._exit(3)

    def _stop_the_server(self, model: Path, folder: Path) -> Compiled:
        os.kill(os.getppid(), signal.SIGSTOP)
        return self._hang(model, folder)

    def _kill_the_server(self, model: Path, folder: Path) -> Compiled:
        os.kill(os.getppid(), signal.SIGKILL)
        return self._hang(model, folder)

    def _sparse_file(self, model: Path, folder: Path) -> Compiled:
        made = super().compile(self.targets()[0], model, folder)
        # As far as it may be written, and as another process may.
        with (folder / "w").open("wb") as file:
            file.truncate(1 << 30)
        with (folder / "v").open("wb") as file:
            file.truncate(1 << 30)
        return Compiled(files=(*made.files, ("w", folder / "w"), ("v", folder / "v")), ep_string=None)

    def _daemon(self, work: Callable[[], None]) -> None:
        """Start a process that is nobody's child."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                work()
            os._exit(0)

    def _daemon_eats_memory(self, model: Path, folder: Path) -> Compiled:
        def eat() -> None:
            eaten = []
            for _ in range(100):
                eaten.append(bytearray(os.urandom(1024)) * (16 * 1024))
                time.sleep(0.02)
            time.sleep(1000)

        self._daemon(eat)
        return self._hang(model, folder)

    def _leave_a_daemon(self, model: Path, folder: Path) -> Compiled:
        def stay() -> None:
            print(f"daemon {os.getpid()}", flush=True)
            time.sleep(1000)

        self._daemon(stay)
        time.sleep(0.5)
        raise RuntimeError("the daemon stays")

    def _with(
        self, model: Path, folder: Path, *files: tuple[str, Path], string: str | None = None
    ) -> Compiled:
        onnx.save(onnx.load(model), folder / "model.onnx")
        return Compiled(files=(("model.onnx", folder / "model.onnx"), *files), ep_string=string)

    def _symbolic_link(self, model: Path, folder: Path) -> Compiled:
        (folder / "w").symlink_to(os.environ["TROUBLESOME_SECRET"])
        return self._with(model, folder, ("w", folder / "w"))

    def _linked_folder(self, model: Path, folder: Path) -> Compiled:
        secret = Path(os.environ["TROUBLESOME_SECRET"])
        (folder / "inner").symlink_to(secret.parent)
        return self._with(model, folder, ("w", folder / "inner" / secret.name))

    def _hard_link(self, model: Path, folder: Path) -> Compiled:
        os.link(os.environ["TROUBLESOME_SECRET"], folder / "w")
        return self._with(model, folder, ("w", folder / "w"))

    def _file_outside(self, model: Path, folder: Path) -> Compiled:
        return self._with(model, folder, ("w", Path(os.environ["TROUBLESOME_SECRET"])))

    def _name_a_file_of_others(self, model: Path, folder: Path) -> Compiled:
        made = self._with(model, folder)
        changed = onnx.load(folder / "model.onnx")
        tensor = changed.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=os.environ["TROUBLESOME_SECRET"])
        (folder / "model.onnx").write_bytes(changed.SerializeToString())
        return made

    def _many_files(self, model: Path, folder: Path) -> Compiled:
        (folder / "w").touch()
        return self._with(model, folder, *((f"f{number}", folder / "w") for number in range(5000)))

    def _many_operators(self, model: Path, folder: Path) -> Compiled:
        made = self._with(model, folder)
        nodes = [helper.make_node(f"Op{number}", [], [f"o{number}"], domain="x") for number in range(1100)]
        changed = onnx.load(folder / "model.onnx")
        context = helper.make_node("EPContext", [], ["o"], domain="com.microsoft")
        changed.graph.node.extend([context, *nodes])
        onnx.save(changed, folder / "model.onnx")
        return made

    def _case_twins(self, model: Path, folder: Path) -> Compiled:
        (folder / "W").write_bytes(b"1")
        (folder / "w").write_bytes(b"2")
        return self._with(model, folder, ("W", folder / "W"), ("w", folder / "w"))

    def _nested_paths(self, model: Path, folder: Path) -> Compiled:
        (folder / "w").write_bytes(b"1")
        return self._with(model, folder, ("model.onnx/w", folder / "w"))

    def _long_string(self, model: Path, folder: Path) -> Compiled:
        return self._with(model, folder, string="s" * 70_000)

    def _surrogate_string(self, model: Path, folder: Path) -> Compiled:
        return self._with(model, folder, string="s\udc80")

    def _wrong_types(self, model: Path, folder: Path) -> Compiled:
        return Compiled(files=((1, 2),), ep_string=b"3")  # type: ignore[arg-type]

    def _change_the_model(self, model: Path, folder: Path) -> Compiled:
        made = self._with(model, folder)
        for file in model.parent.iterdir():
            file.chmod(0o666)
            file.write_bytes(b"\0" * file.stat().st_size)
        return made

    def _remove_the_model(self, model: Path, folder: Path) -> Compiled:
        made = self._with(model, folder)
        shutil.rmtree(model.parent)
        return made

    def _remove_its_folder(self, model: Path, folder: Path) -> Compiled:
        made = self._with(model, folder)
        shutil.rmtree(Path.cwd().parent)
        return made

    def _print_without_end(self, model: Path, folder: Path) -> Compiled:
        while True:
            os.write(1, b"again\n" * 100_000)
            time.sleep(0.01)

    def _secrets(self, model: Path, folder: Path) -> Compiled:
        print(os.environ["TROUBLESOME_TOKEN"], Path.home() / "models", flush=True)
        raise RuntimeError(f"no licence for {os.environ['TROUBLESOME_TOKEN']}")

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
