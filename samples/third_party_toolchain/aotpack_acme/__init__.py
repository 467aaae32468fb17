"""The least that a toolchain for aotpack has to have: graphs optimised for one instruction set of CPUs.

What is compiled runs on ONNX Runtime's own CPU EP, so that there is nothing else to install. A real one would
call its vendor's compiler in `compile` and register its vendor's EP in `add_provider`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.errors import CompileError
from aotpack.machine.ort_release import ort_version
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Variant
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict
from aotpack.targets.catalogue import Target
from aotpack.toolchains.base import Compiled, RunsHere, Toolchain

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["AcmeToolchain"]

#: Of a compatibility string; the architecture follows.
_PREFIX = "acme:1:"


class AcmeToolchain(Toolchain):
    """Graphs that are optimised for x86-64, or for AArch64."""

    name = "acme"
    ep = "CPUExecutionProvider"

    def targets(self) -> tuple[Target, ...]:
        """One for each architecture; a target is data."""
        return tuple(
            Target(
                name=f"acme-{arch.replace('_', '-')}",
                toolchain=self.name,
                ep=self.ep,
                device="cpu",
                title=f"Any {arch} CPU",
                architectures=(arch,),
            )
            for arch in ("x86_64", "aarch64")
        )

    def version(self) -> str | None:
        """Read from metadata: onnxruntime is not imported for it."""
        return ort_version()

    def pip_command(self) -> str:
        """Shown wherever the EP is missing."""
        return "pip install aotpack-acme"

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """On a CPU of the target's architecture; a variant that can run is checked when it is built."""
        if machine.arch in target.architectures:
            return RunsHere("host")
        return RunsHere(None, f"this is no {target.architectures[0]} CPU")

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """Called in a process of its own; what it writes into `folder` is taken."""
        import onnxruntime as ort

        output = folder / "model.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(output)
        try:
            ort.InferenceSession(str(model), options, providers=[self.ep])
        except Exception as error:
            raise CompileError(str(error), where=target.name) from error
        return Compiled(files=(("model.onnx", output),), ep_string=_PREFIX + target.architectures[0])

    def foreseen(self, target: Target) -> str | None:
        """Known before it is compiled, so that `aotpack coverage` can say whom it would help."""
        return _PREFIX + target.architectures[0]

    def compiled_string(self, target: Target, model: Path) -> str | None:
        """Of a model that another machine compiled: an EP that writes none leaves it to the target."""
        return self.foreseen(target)

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """By the string and the machine alone: the package may be a stranger's, the machine far away."""
        text = variant.compatibility.ep_string or ""
        arch = text.removeprefix(_PREFIX)
        if not text.startswith(_PREFIX) or arch not in ("x86_64", "aarch64"):
            return Verdict(Grade.UNKNOWN, Code.STRING_MALFORMED, "Acme wrote no such string.")
        fits = None if machine.arch is None else machine.arch == arch
        compared = (Comparison("architecture", machine.arch, arch, fits),)
        if fits is None:
            reason = "The machine profile does not say its architecture."
            return Verdict(Grade.UNKNOWN, Code.NOT_IN_PROFILE, reason, compared)
        if not fits:
            return Verdict(Grade.UNSUPPORTED, Code.ARCH, f"It needs a CPU that is {arch}.", compared)
        return Verdict(Grade.OPTIMAL, Code.FITS, f"It runs on every {arch} CPU.", compared)

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        """Nothing: ONNX Runtime's own EP is always there."""
