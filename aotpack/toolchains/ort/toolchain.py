"""ONNX Runtime's own CPU EP: the untouched ONNX, and a graph optimised ahead of time.

The CPU EP has no compiled form: ModelCompiler on it succeeds and writes a plain ONNX
(docs/toolchains/ort.md). What can be done ahead of time is the graph, and its weights stay what they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aotpack.errors import CompileError, ToolchainMissing
from aotpack.machine.ort_release import ort_minor, ort_version
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Requirements, SessionSettings, Variant
from aotpack.selection.custom_ops import register
from aotpack.selection.verdict import Code, Grade, Verdict
from aotpack.targets.catalogue import PORTABLE, Target
from aotpack.toolchains.base import Compiled, RunsHere, Toolchain
from aotpack.toolchains.plugin import COMPILED_CONFIG, MODEL_NAME

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.flex.capabilities import Capabilities

__all__ = ["OrtToolchain", "write_optimised"]

#: Initializers of at least this many bytes are written beside the graph, where they can be mapped.
_EXTERNAL_FROM = 1024

#: Of what an optimised graph may have of its model's bytes, before it is written without computed constants.
_MOST_GROWTH = 2


class OrtToolchain(Toolchain):
    """onnxruntime itself."""

    name = "ort"
    ep = "CPUExecutionProvider"
    takes_custom_ops = True
    loads_from_memory = True
    package_config = COMPILED_CONFIG
    # Its CPU EP casts it and does nothing else with it.
    widens = MappingProxyType({"BFLOAT16": "FLOAT"})

    def version(self) -> str | None:
        """onnxruntime's."""
        try:
            return ort_version()
        except ToolchainMissing:
            return None

    def pip_command(self) -> str:
        """It is a requirement of aotpack."""
        return "pip install onnxruntime"

    def built_with(self) -> Mapping[str, str]:
        """onnxruntime's version."""
        return {"onnxruntime": ort_version()}

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """It always can."""
        return None

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """On every machine that has onnxruntime."""
        return RunsHere("host")

    def compiled_string(self, target: Target, model: Path) -> str | None:
        """It writes none; what the model's metadata calls one is the author's."""
        return None

    def requirements(self, target: Target) -> Requirements:
        """None for the portable ONNX; an optimised graph has fused operators of this release of ORT."""
        if target.name == PORTABLE:
            return Requirements()
        return Requirements(onnxruntime=f">={ort_minor()}")

    def session_settings(self, target: Target) -> SessionSettings:
        """ORT's defaults: what depends on this very CPU is left to the load."""
        return SessionSettings()

    def flex_capabilities(self, target: Target) -> Capabilities:
        """The CPU EP's fused attention kernels, with what they cost (benchmarks/flex_costs.py).

        Attention has none from opset 25 on.
        """
        from aotpack.flex.capabilities import Capabilities, FusedOp

        return Capabilities(
            gathers=True,
            updates_in_place=True,
            node_cost=5_000,
            fused_ops=frozenset(
                {
                    FusedOp(
                        domain="com.microsoft",
                        name="GroupQueryAttention",
                        opsets=(1, 1),
                        cost=0.53,
                        row_cost=800,
                        softcap_cost=0.7,
                    ),
                    FusedOp(
                        domain="com.microsoft",
                        name="MultiHeadAttention",
                        opsets=(1, 1),
                        cost=0.9,
                        mask_cost=0.8,
                    ),
                    FusedOp(
                        domain="",
                        name="Attention",
                        opsets=(23, 24),
                        cost=0.95,
                        mask_cost=0.8,
                        softcap_cost=3,
                        spills=True,
                    ),
                }
            ),
        )

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """Optimise the graph, to the highest level that does not depend on the CPU (extended).

        Constants are computed ahead of time, but not where the graph would grow by it: quantised weights that
        are cast and scaled are four times as large in f32, and no faster. They stay as they are then, and
        each load computes them, as it does those of the portable variant.
        """
        if target.name == PORTABLE:
            raise CompileError("the portable variant is the source itself", where=target.name)
        where = f"{self.ep} optimising for {target.name}"

        def written(folder: Path, disabled: Sequence[str]) -> Compiled:
            folder.mkdir(exist_ok=True)
            options = self._options(custom_ops)
            return write_optimised(
                model, options, folder, where=where, providers=[self.ep], disabled=disabled
            )

        computed = written(folder, ())
        if _size(computed) <= _MOST_GROWTH * _size_of_model(model):
            return computed
        packed = written(folder / "packed", ["ConstantFolding"])
        return min(packed, computed, key=_size)

    def _options(self, custom_ops: Sequence[Path]) -> onnxruntime.SessionOptions:
        import onnxruntime as ort

        options = ort.SessionOptions()
        register(options, custom_ops)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        # 4, its default, rounds what is multiplied with quantised weights to int8; 1 computes in f32.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        return options

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """It fits wherever its requirements are met."""
        if variant.target == PORTABLE:
            return Verdict(
                Grade.OPTIMAL, Code.PORTABLE, "The untouched ONNX runs wherever ONNX Runtime does."
            )
        return Verdict(
            Grade.OPTIMAL, Code.FITS, "It runs on every CPU with this release of ONNX Runtime or a later one."
        )

    def looks_at(self, variant: Variant) -> Hashable:
        """Whether it is the untouched ONNX."""
        return variant.target == PORTABLE

    def add_provider(self, options: onnxruntime.SessionOptions, variant: Variant, *, emulate: bool) -> None:
        """Nothing: the CPU EP is always there."""


def write_optimised(
    model: Path,
    options: onnxruntime.SessionOptions,
    folder: Path,
    *,
    where: str,
    providers: list[str] | None = None,
    disabled: Sequence[str] = (),
) -> Compiled:
    """Write the graph that a session with `options` makes of `model`, its weights beside it.

    Args:
        model: to read.
        options: of the session; the files to write are set in it.
        folder: to write into.
        where: for errors.
        providers: names of EPs; None: those of `options`.
        disabled: names of ONNX Runtime's graph transformers that are left out.

    Raises:
        CompileError: there is no such session.
    """
    import onnxruntime as ort

    output, data = folder / MODEL_NAME, f"{MODEL_NAME}.data"
    options.optimized_model_filepath = str(output)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", data)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_EXTERNAL_FROM)
    )
    try:
        ort.InferenceSession(
            str(model),
            options,
            providers=providers,
            disabled_optimizers=list(disabled) or None,
            enable_fallback=0,
        )
    except Exception as error:
        raise CompileError(str(error), where=where) from error
    _drop_constants_written_twice(output)
    sidecars = [(data, folder / data)] if (folder / data).exists() else []
    return Compiled(files=((MODEL_NAME, output), *sidecars), ep_string=None)


def _drop_constants_written_twice(path: Path) -> None:
    """Take out of a model that ONNX Runtime wrote the Constants that are initializers of their graph too.

    With its weights beside it, it writes both of graphs that are nested in nested graphs
    (`Graph::ToGraphProtoWithExternalInitializers`, 1.32), and then refuses the model.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    waiting, changed = [model.graph], False
    while waiting:
        graph = waiting.pop()
        known = {tensor.name for tensor in graph.initializer}
        for index in reversed(range(len(graph.node))):
            node = graph.node[index]
            if node.op_type == "Constant" and not node.domain and node.output[0] in known:
                del graph.node[index]
                changed = True
        for attribute in (each for node in graph.node for each in node.attribute):
            waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
    if changed:
        path.write_bytes(model.SerializeToString(deterministic=True))


def _size(compiled: Compiled) -> int:
    """Of all its files, in bytes."""
    return sum(path.stat().st_size for _, path in compiled.files)


def _size_of_model(model: Path) -> int:
    """Of its file and those that its initializers are in, in bytes."""
    import onnx

    tensors = onnx.load(model, load_external_data=False).graph.initializer
    entries = [entry for tensor in tensors for entry in tensor.external_data]
    data = {entry.value for entry in entries if entry.key == "location"}
    return sum((model.parent / name).stat().st_size for name in (model.name, *data))
