"""TensorRT for RTX: engines made by NVIDIA's own builder, which needs neither a GPU nor a driver.

The EP's own route to an engine is compiled out of its Linux build (docs/toolchains/tensorrt-rtx.md), so the
engine is built with the vendor's Python API and wrapped in the EPContext model that the EP would have
written (NVIDIA/TensorRT-RTX-EP-ABI, src/onnx_ctx_model_helper.cc). It runs only on a GPU; what can be checked
without one is the engine's header: the format, the length, and the compute capabilities that were asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aotpack.common.vendor_text import brief
from aotpack.errors import CompileError, ToolchainMissing
from aotpack.machine.ort_release import ort_version
from aotpack.machine.profile import Devices, Machine
from aotpack.machine.system import System
from aotpack.manifest.values import Requirements, Variant
from aotpack.selection.verdict import Verdict
from aotpack.targets.catalogue import Target
from aotpack.toolchains.base import Compiled, RunsHere
from aotpack.toolchains.file_version import file_version
from aotpack.toolchains.generations import read_generations
from aotpack.toolchains.ort.toolchain import write_optimised
from aotpack.toolchains.plugin import MODEL_NAME, PluginToolchain, installed_version
from aotpack.toolchains.tensorrt_rtx import gpus as nvidia_gpus
from aotpack.toolchains.tensorrt_rtx.string import EP, HEADER_SIZE, EngineHeader, judge, string_for

if TYPE_CHECKING:
    import onnx

__all__ = ["TensorRtRtxToolchain", "why_refused"]

_BUILDER = "tensorrt-rtx-cu12"
_BUILDER_MODULE = "tensorrt_rtx"
_ENGINE_NAME = "model.engine"
#: The EP that ORT optimises for when no other is asked.
_CPU = "CPUExecutionProvider"
#: Of EPContext nodes.
_DOMAIN = "com.microsoft"

#: Those that the EP loads on, of which the catalogue has targets.
_LOADABLE = ("86", "89", "120", "121")
#: What the parser says of an operator that neither it nor a plugin has.
_NO_PLUGIN = re.compile(r"[Pp]lugin (?:creator version \d+ was )?not found")
_NAME = re.compile(r"tensorrt-rtx-(sm[0-9]{2,3}(?:\+sm[0-9]{2,3})+)")


class TensorRtRtxToolchain(PluginToolchain):
    """NVIDIA's builder for RTX GPUs, and the EP that loads what it makes."""

    name = "tensorrt-rtx"
    ep = EP
    distribution = "onnxruntime-ep-nv-tensorrt-rtx-cu12"
    module = "onnxruntime_ep_nv_tensorrt_rtx"
    extra = "tensorrt-rtx"
    needs_fixed_shapes = True
    # Its parser takes no integers of 2 bits and no unsigned ones of 4, and no zero point but zero.
    widens = MappingProxyType({"INT2": "INT4", "UINT2": "INT4", "UINT4": "INT4"})

    def target_named(self, name: str) -> Target | None:
        """One engine for several generations: ``tensorrt-rtx-sm86+sm89``."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        ordered = tuple(
            read_generations(name, match[1], prefix="sm", known=_LOADABLE, what="compute capabilities")
        )
        return Target(
            name=f"tensorrt-rtx-{'+'.join(f'sm{each}' for each in ordered)}",
            toolchain=self.name,
            ep=self.ep,
            device="gpu",
            title=f"RTX GPUs of compute capability {', '.join(map(_dotted, ordered))}, in one engine",
            specificity=70,
            architectures=ordered,
        )

    def pip_command(self) -> str:
        """Of the EP: the extra brings the builder, which is all that compiling needs."""
        return f"pip install {self.distribution}"

    def runtime_details(self) -> Mapping[str, str]:
        """The release of TensorRT-RTX beside the EP.

        On Linux it is in a name, ``libtensorrt_rtx.so.1.7.1``; ``tensorrt_rtx_1_7.dll`` on Windows says
        only a part of it there, and has the rest as its version.
        """
        with contextlib.suppress(metadata.PackageNotFoundError):
            for file in metadata.files(self.distribution) or ():
                if match := re.fullmatch(r"libtensorrt_rtx\.so\.(\d+(?:\.\d+){2,3})", file.name):
                    return {"tensorrt-rtx": match[1]}
                if re.fullmatch(r"tensorrt_rtx_\d+_\d+\.dll", file.name) and (
                    version := file_version(Path(str(file.locate())))
                ):
                    return {"tensorrt-rtx": ".".join(map(str, version))}
        return {}

    def built_with(self) -> Mapping[str, str]:
        """The builder's version. Its engines for the same model can differ in a few bytes."""
        return {
            "onnxruntime": ort_version(),
            _BUILDER: installed_version(_BUILDER) or "not installed",
        }

    def identify(self, devices: Devices, system: System) -> Devices:
        """The GPUs as nvidia-smi lists them."""
        return devices._replace(gpus=nvidia_gpus.identify(devices.gpus, system))

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """The builder must be installed; it is there for x86-64 only."""
        if machine.arch != "x86_64":
            return "TensorRT-RTX's builder is for x86-64 only"
        if installed_version(_BUILDER) is None:
            return f"{_BUILDER} is not installed (pip install aotpack[{self.extra}])"
        return None

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """On an RTX GPU with the EP; there is no emulator."""
        gpus = [gpu for gpu in machine.gpus or () if gpu.vendor == "nvidia"]
        if not gpus:
            return RunsHere(
                None, "there is no NVIDIA GPU; the engine was checked for its structure and has never run"
            )
        if self.version() is None:
            return RunsHere(None, f"{self.distribution} is not installed ({self.pip_command()})")
        own = {(gpu.compute_capability or "").replace(".", "") for gpu in gpus}
        if own.isdisjoint(target.architectures):
            return RunsHere(None, "the GPU here is of another compute capability")
        return RunsHere("host")

    def requirements(self, target: Target) -> Requirements:
        """Whatever has the EP; the engine is the same on Linux and Windows."""
        return target.requires

    def load(self) -> None:
        """Load the builder."""
        _builder()

    def compile(
        self, target: Target, model: Path, folder: Path, *, custom_ops: Sequence[Path] = ()
    ) -> Compiled:
        """Build one engine for the target's compute capabilities, and wrap it."""
        engine = self._engine(target, model, folder)
        ep_string = engine[:HEADER_SIZE].hex()
        header = EngineHeader.parse(ep_string)
        if header is None or header.length > len(engine):
            raise CompileError("the engine has a header of another form than is known", where=target.name)
        asked = tuple(map(_dotted, target.architectures))
        if header.capabilities != asked:
            raise CompileError(
                "the engine is not for what was asked for",
                where=target.name,
                found=", ".join(header.capabilities),
                expected=", ".join(asked),
            )
        (folder / _ENGINE_NAME).write_bytes(engine)
        _wrap(model, folder / MODEL_NAME, self.ep, engine)
        files = tuple((name, folder / name) for name in (MODEL_NAME, _ENGINE_NAME))
        return Compiled(files=files, ep_string=ep_string)

    def _engine(self, target: Target, model: Path, folder: Path) -> bytes:
        """Of the model as it is or, where the builder refuses that, as the EP would have got it from ORT.

        The parser takes no branches that depend on shapes, which ORT decides where shapes are fixed.
        """
        import onnxruntime as ort

        try:
            return self._build(target, model)
        except CompileError as refused:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            optimised = folder / "optimised"
            optimised.mkdir()
            try:
                write_optimised(model, options, optimised, where=target.name, providers=[_CPU])
                return self._build(target, optimised / MODEL_NAME)
            except CompileError:
                raise refused from None

    def _build(self, target: Target, model: Path) -> bytes:
        trt = _builder()
        errors: list[str] = []

        class Log(trt.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, message: str) -> None:
                print(f"[{severity}] {message}")  # noqa: T201
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    errors.append(message)

        log = Log()
        builder = trt.Builder(log)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(model)):
            told = [parser.get_error(index) for index in range(parser.num_errors)]
            refused = why_refused((error.node_operator(), error.desc()) for error in told)
            raise CompileError(refused or "the model was not parsed", where=f"TensorRT-RTX {target.name}")
        config = builder.create_builder_config()
        config.num_compute_capabilities = len(target.architectures)
        for index, name in enumerate(target.architectures):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{name}"), index)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise CompileError(
                "; ".join(errors) or "no engine came out, without a word", where=f"TensorRT-RTX {target.name}"
            )
        return bytes(engine)

    def looks_at(self, variant: Variant) -> Hashable:
        """The front of its engine."""
        return variant.compatibility.ep_string

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """The rules on its string (`aotpack.toolchains.tensorrt_rtx.string.judge`)."""
        return judge(variant.compatibility.ep_string, machine)

    def foreseen(self, target: Target) -> str | None:
        """The string for the target's compute capabilities and the installed builder, without sizes."""
        release = installed_version(_BUILDER)
        return string_for(release, map(_dotted, target.architectures)) if release else None


def why_refused(errors: Iterable[tuple[str, str]]) -> str:
    """What a parser said, in one line; empty if it said nothing.

    Args:
        errors: of each node that it did not take, the operator and the description. That of an operator which
            it does not have is the condition that was not met, ``false``, or that a plugin was not found.
    """
    missing: Counter[str] = Counter()
    said: dict[str, None] = {}
    for operator, description in errors:
        if operator and (not brief(description) or _NO_PLUGIN.search(description)):
            missing[operator] += 1
        elif description.strip():
            said[description.strip()] = None
    nodes = [name if count == 1 else f"{name} ({count} nodes)" for name, count in missing.items()]
    return "; ".join([*([f"it does not take {', '.join(nodes)}"] if nodes else []), *said])


def _builder() -> Any:
    if util.find_spec(_BUILDER_MODULE) is None:
        raise ToolchainMissing(
            "is not installed", where=_BUILDER, hint=f"pip install aotpack[{TensorRtRtxToolchain.extra}]"
        )
    import tensorrt_rtx

    return tensorrt_rtx


def _dotted(architecture: str) -> str:
    return f"{architecture[:-1]}.{architecture[-1]}"


def _wrap(model: Path, output: Path, ep: str, engine: bytes) -> None:
    """Write the model with one EPContext node that the EP loads the engine by, as the EP writes it."""
    import onnx
    from onnx import helper

    source: onnx.ModelProto = onnx.load(model, load_external_data=False)
    initializers = {tensor.name for tensor in source.graph.initializer}
    inputs = [value for value in source.graph.input if value.name not in initializers]
    # The EP calls its cache of kernels after it: no two engines may have one name.
    name = f"{ep}_{hashlib.sha256(engine).hexdigest()[:16]}_0"
    node = helper.make_node(
        "EPContext",
        [value.name for value in inputs],
        [value.name for value in source.graph.output],
        name=name,
        domain=_DOMAIN,
        # Each has an engine of its own, as far as the EP is concerned.
        main_context=0,
        embed_mode=0,
        ep_cache_context=_ENGINE_NAME,
        source=ep,
        # Two that the EP writes for every engine; which GPUs this one is for is in its header.
        hardware_architecture="80+",
        ep_sdk_version="1.0",
        ep_context_op_domain=_DOMAIN,
        partition_name=name,
        onnx_model_filename=model.name,
    )
    graph = helper.make_graph([node], source.graph.name or "graph", inputs, list(source.graph.output))
    wrapped = helper.make_model(
        graph,
        ir_version=source.ir_version,
        opset_imports=[
            *(opset for opset in source.opset_import if opset.domain in ("", "ai.onnx")),
            helper.make_opsetid(_DOMAIN, 1),
        ],
    )
    helper.set_model_props(wrapped, {f"ep_compatibility_info.{ep}": engine[:HEADER_SIZE].hex()})
    onnx.save(wrapped, output)
