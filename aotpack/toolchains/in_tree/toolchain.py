"""EPs that only other builds of ONNX Runtime have: known, so that a package and a user can name them.

They compile on the very device that they will run on. aotpack builds on machines that need not have it, so
what it has to say of them is what they need.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from aotpack.errors import ToolchainMissing
from aotpack.machine.ort_release import ort_version
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Requirements, Variant
from aotpack.selection.verdict import Code, Grade, Verdict
from aotpack.targets.catalogue import Target
from aotpack.toolchains.base import Compiled, RunsHere, Toolchain
from aotpack.toolchains.plugin import installed_version

if TYPE_CHECKING:
    import onnxruntime


__all__ = ["InTreeToolchain", "MiGraphXToolchain", "TensorRtToolchain", "VitisAiToolchain"]


class InTreeToolchain(Toolchain):
    """An EP inside a build of onnxruntime that is not the one aotpack requires."""

    #: The package with that build of onnxruntime.
    distribution: str
    #: What it needs, as the end of a sentence.
    needs: str

    def version(self) -> str | None:
        """Of that build of onnxruntime."""
        return installed_version(self.distribution)

    def pip_command(self) -> str:
        """It takes the place of onnxruntime."""
        return f"pip install {self.distribution}"

    def built_with(self) -> Mapping[str, str]:
        """The version of that build, if there is one."""
        return {self.distribution: self.version() or "not installed"}

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """It never can on this build of onnxruntime."""
        return f"{self.ep} is not in this build of ONNX Runtime: it needs {self.needs}"

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """Not with this build of onnxruntime."""
        return RunsHere(None, self.why_not_compile(target, machine) or "")

    def load(self) -> None:
        """There is nothing to load."""
        self._refuse()

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """It cannot."""
        self._refuse()

    def requirements(self, target: Target) -> Requirements:
        """What the catalogue says of the target."""
        return target.requires

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """Nobody can say."""
        return Verdict(Grade.UNKNOWN, Code.STRING_NOT_APPLICABLE, f"No rules are known for {self.ep}.")

    def looks_at(self, variant: Variant) -> Hashable:
        """Nothing."""
        return None

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        """There is no such session."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        found = f"onnxruntime {ort_version()} without it"
        raise ToolchainMissing(f"needs {self.needs}", where=self.ep, found=found)


class TensorRtToolchain(InTreeToolchain):
    """TensorRT, for data-centre and other NVIDIA GPUs."""

    name = "tensorrt"
    ep = "TensorrtExecutionProvider"
    distribution = "onnxruntime-gpu"
    needs = "onnxruntime-gpu, TensorRT 10 and the very GPU that the engine is for"


class VitisAiToolchain(InTreeToolchain):
    """Vitis AI, for the NPUs of Ryzen AI."""

    name = "vitisai"
    ep = "VitisAIExecutionProvider"
    distribution = "onnxruntime-vitisai"
    needs = "the Ryzen AI software and its build of onnxruntime, on Windows"


class MiGraphXToolchain(InTreeToolchain):
    """MIGraphX, for AMD GPUs under ROCm."""

    name = "migraphx"
    ep = "MIGraphXExecutionProvider"
    distribution = "onnxruntime-migraphx"
    needs = "onnxruntime-migraphx, ROCm and the very GPU that it compiles for"
