"""A child process for a vendor's library: ``python -m aotpack.builder.jobs.worker REQUEST RESULT``.

A vendor's compiler can abort, hang or eat the memory; here that costs one target. The request and the
result are JSON files, since what the process prints belongs to the vendor.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from aotpack._values import Value
from aotpack.builder.jobs.manifest_rules import first_issue
from aotpack.errors import AotpackError, CompileError
from aotpack.manifest import Coverage, TensorInfo, Variant
from aotpack.paths import path_issue
from aotpack.target import Target
from aotpack.tuning import Measurement

if TYPE_CHECKING:
    from aotpack.builder.models.numerics import Array
    from aotpack.toolchain.base import Compiled

__all__ = [
    "AnyRequest",
    "CompareRequest",
    "CompileRequest",
    "CompiledPart",
    "Difference",
    "InspectRequest",
    "MeasureRequest",
    "Part",
    "ReferenceRequest",
    "Request",
    "Result",
    "Seconds",
    "main",
]

#: Of integer inputs, in the order they are tried: bytes, then flags and small indices, then zero.
_HIGHEST_INTEGERS = (256, 2, 1)
#: Of an error, in characters: some vendors name every node of a model in one message.
_LONGEST_ERROR = 10_000


#: A wall time.
Seconds = Annotated[float, Field(ge=0)]
#: Of outputs. It is no less than 0, and NaN is none: that would be within every tolerance or none.
Difference = Annotated[float, Field(ge=0)]


class Part(Value):
    """A component to compile."""

    component: str
    model: str
    #: Nodes of the model, constants left out.
    nodes: int


class CompileRequest(Value):
    """Compile a model for a target, or several that share their weights, each into an empty folder."""

    step: Literal["compile"] = "compile"
    toolchain: str
    target: Target
    parts: tuple[Part, ...]
    folder: str


class ReferenceRequest(Value):
    """Run the portable model on seeded inputs and keep both."""

    step: Literal["reference"] = "reference"
    model: str
    inputs: tuple[TensorInfo, ...]
    output: str


class CompareRequest(Value):
    """Run a variant on the inputs of a reference and compare."""

    step: Literal["compare"] = "compare"
    variant: Variant
    model: str
    reference: str
    emulate: bool


class InspectRequest(Value):
    """Count what is in a variant that another machine compiled, and read its compatibility string."""

    step: Literal["inspect"] = "inspect"
    toolchain: str
    target: Target
    parts: tuple[Part, ...]


class MeasureRequest(Value):
    """Time a variant (`aotpack.builder.jobs.measure`)."""

    step: Literal["measure"] = "measure"
    variant: Variant
    model: str
    inputs: tuple[TensorInfo, ...]
    runs: int
    seconds: float
    emulate: bool


#: What a worker can be asked for.
AnyRequest = CompileRequest | ReferenceRequest | CompareRequest | InspectRequest | MeasureRequest

#: The same as JSON: ``step`` tells which it is.
Request = Annotated[AnyRequest, Field(discriminator="step")]


class CompiledPart(Value):
    """What became of a `Part`."""

    #: (path inside the variant, path on disk).
    files: tuple[tuple[str, str], ...]
    ep_string: str | None
    coverage: Coverage
    #: Names of the nodes left outside, by operator type.
    left: dict[str, tuple[str, ...]] = Field(default={})


class Result(Value):
    """What a worker has to say, unless it died first."""

    #: None if it succeeded.
    error: str | None = None
    #: Of loading the vendor's library.
    load_seconds: Seconds = 0.0
    #: Of the vendor's own work alone: compiling, or creating and running a session.
    seconds: Seconds = 0.0
    parts: tuple[CompiledPart, ...] = ()
    max_abs: Difference | None = None
    difference: Difference | None = None
    measurement: Measurement | None = None


def main(request: Path, result: Path) -> None:
    """Do what the file `request` asks and write `result`, atomically."""
    asked: AnyRequest = TypeAdapter(Request).validate_json(request.read_bytes())
    try:
        answer = (
            _compile(asked)
            if asked.step == "compile"
            else _reference(asked)
            if asked.step == "reference"
            else _compare(asked)
            if asked.step == "compare"
            else _inspect(asked)
            if asked.step == "inspect"
            else _measure(asked)
        )
        # Not every text that a vendor's library gives can be written as JSON.
        text = answer.model_dump_json()
    except AotpackError as error:
        _print_causes(error)
        text = _failure(str(error))
    except ValidationError as error:
        text = _failure(f"it gave what no package may hold: {first_issue(error)}")
    except Exception as error:
        # Whatever a vendor's Python layer raises is this job's failure and nobody else's.
        traceback.print_exc(file=sys.stderr)
        text = _failure(f"{type(error).__name__}: {error}")
    partial = result.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(result)


def _failure(sentence: str) -> str:
    kept = sentence[:_LONGEST_ERROR].encode("utf-8", "replace").decode("utf-8")
    return Result(error=kept).model_dump_json()


def _print_causes(error: BaseException) -> None:
    """Leave in the log what our own error was made of, for whoever has to mend the vendor's package."""
    if error.__cause__ is not None:
        traceback.print_exception(error.__cause__, file=sys.stderr)


def _die_with_the_parent() -> None:
    """End this process when the one that started it is gone: stdin is a pipe that it holds open."""

    def wait() -> None:
        # Not sys.stdin: at its end the interpreter aborts when a thread holds the lock of a buffer.
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _compile(asked: CompileRequest) -> Result:
    from aotpack.builder.models.metadata import copy_metadata
    from aotpack.toolchain import toolchains

    toolchain = toolchains()[asked.toolchain]
    started = time.perf_counter()
    toolchain.load()
    loaded = time.perf_counter()
    models = [Path(part.model) for part in asked.parts]
    folders = [Path(asked.folder) / str(index) for index in range(len(models))]
    for folder in folders:
        folder.mkdir()
    compiled = (
        toolchain.compile_together(asked.target, models, folders)
        if len(models) > 1
        else (toolchain.compile(asked.target, models[0], folders[0]),)
    )
    seconds = time.perf_counter() - loaded
    parts = tuple(_part(part, made) for part, made in zip(asked.parts, compiled, strict=True))
    for model, made in zip(models, compiled, strict=True):
        copy_metadata(model, made.files[0][1])
    return Result(load_seconds=loaded - started, seconds=seconds, parts=parts)


def _part(part: Part, compiled: Compiled) -> CompiledPart:
    for name, path in compiled.files:
        if issue := path_issue(name):
            raise CompileError(f"a file's name {issue}", where=part.component)
        if not path.is_file():
            raise CompileError("was not written", where=path)
    coverage, left = _coverage(part, compiled.files[0][1])
    return CompiledPart(
        files=tuple((name, str(path)) for name, path in compiled.files),
        ep_string=compiled.ep_string,
        coverage=coverage,
        left=left,
    )


def _inspect(asked: InspectRequest) -> Result:
    from aotpack.toolchain import toolchains

    toolchain = toolchains()[asked.toolchain]
    parts = []
    for part in asked.parts:
        model = Path(part.model)
        coverage, left = _coverage(part, model)
        string = toolchain.compiled_string(asked.target, model)
        parts.append(CompiledPart(files=(), ep_string=string, coverage=coverage, left=left))
    return Result(parts=tuple(parts))


def _coverage(part: Part, model: Path) -> tuple[Coverage, dict[str, tuple[str, ...]]]:
    """How much of a part its compiled `model` holds compiled, and the names of the other nodes by type."""
    partitions, left = _partitions(model)
    count = sum(len(names) for names in left.values())
    if partitions:
        coverage = Coverage(
            nodes=part.nodes,
            compiled=max(0, part.nodes - count),
            partitions=partitions,
            left_on_cpu={kind: len(names) for kind, names in sorted(left.items())},
        )
    else:
        # A graph without partitions is one that its own EP runs whole.
        coverage, left = Coverage(nodes=part.nodes, compiled=part.nodes, partitions=1), {}
    return coverage, left


def _partitions(model: Path) -> tuple[int, dict[str, tuple[str, ...]]]:
    """The number of EPContext nodes, and the names of all other nodes by operator type."""
    from aotpack.builder.models.model import load_graph

    partitions = 0
    left: dict[str, list[str]] = {}
    for node in load_graph(model).graph.node:
        if node.op_type == "EPContext" and node.domain == "com.microsoft":
            partitions += 1
        elif node.op_type != "Constant":
            left.setdefault(node.op_type, []).append(node.name or next(iter(node.output), "?"))
    return partitions, {kind: tuple(names) for kind, names in left.items()}


def _reference(asked: ReferenceRequest) -> Result:
    import numpy as np
    import onnxruntime as ort

    from aotpack.builder.models.numerics import seeded_inputs

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Beyond it ORT rounds to int8 what it multiplies with quantised weights: no reference is off by 1e-2.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(
        asked.model, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    for highest in _HIGHEST_INTEGERS:
        inputs = seeded_inputs(asked.inputs, highest_integer=highest)
        try:
            outputs = session.run(None, inputs)
            break
        except Exception as error:
            # Integers may be indices into something small.
            if highest == _HIGHEST_INTEGERS[-1]:
                raise CompileError(f"the portable model does not run on made-up inputs: {error}") from error
    arrays: dict[str, Any] = {f"in:{name}": value for name, value in inputs.items()}
    arrays |= {f"out:{index}": value for index, value in enumerate(outputs)}
    np.savez(asked.output, **arrays)
    return Result()


def _compare(asked: CompareRequest) -> Result:
    import numpy as np

    from aotpack.builder.models.numerics import difference
    from aotpack.session import create
    from aotpack.toolchain import toolchains

    toolchain = toolchains()[asked.variant.toolchain]
    started = time.perf_counter()
    toolchain.load()
    loaded = time.perf_counter()
    session = create(asked.variant, Path(asked.model), toolchain, emulate=asked.emulate)
    with np.load(asked.reference) as stored:
        names = [output.name for output in session.get_outputs()]
        wanted: list[Array] = [stored[f"out:{index}"] for index in range(len(names))]
        inputs = {key.removeprefix("in:"): stored[key] for key in stored.files if key.startswith("in:")}
    known = {value.name for value in session.get_inputs()}
    outputs = session.run(names, {name: value for name, value in inputs.items() if name in known})
    seconds = time.perf_counter() - loaded
    max_abs, error = difference(outputs, wanted)
    return Result(
        load_seconds=loaded - started, seconds=seconds, max_abs=_finite(max_abs), difference=_finite(error)
    )


def _measure(asked: MeasureRequest) -> Result:
    from aotpack.builder.jobs.measure import measure

    measurement = measure(
        asked.variant,
        Path(asked.model),
        asked.inputs,
        runs=asked.runs,
        seconds=asked.seconds,
        emulate=asked.emulate,
    )
    return Result(measurement=measurement)


def _finite(value: float) -> float:
    # JSON has no infinity and no NaN; no tolerance reaches this.
    return min(value, sys.float_info.max) if value == value else sys.float_info.max


if __name__ == "__main__":
    _die_with_the_parent()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Some vendors' libraries abort or hang when the interpreter tears them down; the work is done.
    os._exit(0)
