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
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from aotpack.builder.numerics.compare import Compared
from aotpack.common.field_errors import explain
from aotpack.common.paths import path_issue
from aotpack.common.values import Value
from aotpack.errors import AotpackError, CompileError
from aotpack.manifest.values import Coverage, TensorInfo, Variant
from aotpack.runtime.tuning import Measurement
from aotpack.targets.catalogue import Target

if TYPE_CHECKING:
    from aotpack.toolchains.base import Compiled

__all__ = [
    "AnyRequest",
    "CompareRequest",
    "CompileRequest",
    "CompiledPart",
    "InspectRequest",
    "MeasureRequest",
    "Part",
    "ReferenceRequest",
    "RegisterRequest",
    "Result",
    "Seconds",
    "main",
]

#: Of an error, in characters: some vendors name every node of a model in one message.
_LONGEST_ERROR = 10_000


#: A wall time.
Seconds = Annotated[float, Meta(ge=0)]


class Part(Value, kw_only=True):
    """A component to compile."""

    component: str
    model: str
    #: Nodes of the model, constants left out.
    nodes: int


class CompileRequest(Value, tag_field="step", tag="compile", kw_only=True):
    """Compile a model for a target, or several that share their weights, each into an empty folder."""

    toolchain: str
    target: Target
    parts: tuple[Part, ...]
    folder: str
    #: Paths of libraries of custom operators, here and in the other requests.
    custom_ops: tuple[str, ...] = ()


class RegisterRequest(Value, tag_field="step", tag="register", kw_only=True):
    """Find out whether libraries of custom operators can be loaded."""

    custom_ops: tuple[str, ...]


class ReferenceRequest(Value, tag_field="step", tag="reference", kw_only=True):
    """Run the portable model on inputs and keep both (`aotpack.builder.numerics.reference`)."""

    model: str
    output: str
    #: As the model says them, but for sizes that are fixed; None: as the session says them.
    inputs: tuple[TensorInfo, ...] | None = None
    #: Samples of the user's; None: they are made up.
    given: str | None = None
    #: How many are made up.
    samples: int = 4
    #: That the variants compute in.
    precisions: tuple[str, ...] = ("f32",)
    custom_ops: tuple[str, ...] = ()


class CompareRequest(Value, tag_field="step", tag="compare", kw_only=True):
    """Run a variant on the inputs of a reference and compare (`aotpack.builder.numerics.compare`)."""

    variant: Variant
    model: str
    #: None: there is nothing to compare with, and it is only loaded.
    reference: str | None
    #: That the variant computes in.
    precision: str | None = None
    emulate: bool
    custom_ops: tuple[str, ...] = ()


class InspectRequest(Value, tag_field="step", tag="inspect", kw_only=True):
    """Count what is in a variant that another machine compiled, and read its compatibility string."""

    toolchain: str
    target: Target
    parts: tuple[Part, ...]


class MeasureRequest(Value, tag_field="step", tag="measure", kw_only=True):
    """Time a variant (`aotpack.builder.jobs.measure`)."""

    variant: Variant
    model: str
    inputs: tuple[TensorInfo, ...]
    runs: int
    seconds: float
    emulate: bool
    custom_ops: tuple[str, ...] = ()


#: What a worker can be asked for; in JSON ``step`` tells which it is.
AnyRequest = (
    CompileRequest | RegisterRequest | ReferenceRequest | CompareRequest | InspectRequest | MeasureRequest
)


class CompiledPart(Value, kw_only=True):
    """What became of a `Part`."""

    #: (path inside the variant, path on disk).
    files: tuple[tuple[str, str], ...]
    ep_string: str | None
    coverage: Coverage
    #: Names of the nodes left outside, by operator type.
    left: dict[str, tuple[str, ...]] = {}


class Result(Value, kw_only=True):
    """What a worker has to say, unless it died first."""

    #: None if it succeeded.
    error: str | None = None
    #: Of loading the vendor's library.
    load_seconds: Seconds = 0.0
    #: Of the vendor's own work alone: compiling, or creating and running a session.
    seconds: Seconds = 0.0
    parts: tuple[CompiledPart, ...] = ()
    compared: Compared | None = None
    measurement: Measurement | None = None


def main(request: Path, result: Path) -> None:
    """Do what the file `request` asks and write `result`, atomically."""
    asked: AnyRequest = msgspec.json.decode(request.read_bytes(), type=AnyRequest)
    try:
        answer = (
            _compile(asked)
            if isinstance(asked, CompileRequest)
            else _reference(asked)
            if isinstance(asked, ReferenceRequest)
            else _compare(asked)
            if isinstance(asked, CompareRequest)
            else _inspect(asked)
            if isinstance(asked, InspectRequest)
            else _register(asked)
            if isinstance(asked, RegisterRequest)
            else _measure(asked)
        )
        # Not every text that a vendor's library gives can be written as JSON.
        text = answer.validated().to_json()
    except AotpackError as error:
        _print_causes(error)
        text = _failure(str(error))
    except msgspec.ValidationError as error:
        text = _failure(f"it gave what no package may hold: {explain(error)}")
    except Exception as error:
        # Whatever a vendor's Python layer raises is this job's failure and nobody else's.
        traceback.print_exc(file=sys.stderr)
        text = _failure(f"{type(error).__name__}: {error}")
    partial = result.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(result)


def _failure(sentence: str) -> str:
    kept = sentence[:_LONGEST_ERROR].encode("utf-8", "replace").decode("utf-8")
    return Result(error=kept).to_json()


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
    from aotpack.toolchains import toolchains

    toolchain = toolchains()[asked.toolchain]
    started = time.perf_counter()
    toolchain.load()
    loaded = time.perf_counter()
    models = [Path(part.model) for part in asked.parts]
    folders = [Path(asked.folder) / str(index) for index in range(len(models))]
    for folder in folders:
        folder.mkdir()
    # Toolchains that take none need not have the parameter.
    given = {"custom_ops": tuple(map(Path, asked.custom_ops))} if asked.custom_ops else {}
    compiled = (
        toolchain.compile_together(asked.target, models, folders, **given)
        if len(models) > 1
        else (toolchain.compile(asked.target, models[0], folders[0], **given),)
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
    from aotpack.toolchains import toolchains

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


def _register(asked: RegisterRequest) -> Result:
    from aotpack.runtime.session_options import try_libraries

    try_libraries(tuple(map(Path, asked.custom_ops)))
    return Result()


def _reference(asked: ReferenceRequest) -> Result:
    from aotpack.builder.numerics.reference import make_reference

    make_reference(
        Path(asked.model),
        Path(asked.output),
        given=None if asked.given is None else Path(asked.given),
        precisions=asked.precisions,
        inputs=asked.inputs,
        samples=asked.samples,
        custom_ops=tuple(map(Path, asked.custom_ops)),
    )
    return Result()


def _compare(asked: CompareRequest) -> Result:
    from aotpack.builder.numerics.compare import compare_with
    from aotpack.runtime.session import create
    from aotpack.toolchains import toolchains

    toolchain = toolchains()[asked.variant.toolchain]
    started = time.perf_counter()
    toolchain.load()
    loaded = time.perf_counter()
    session = create(
        asked.variant,
        Path(asked.model),
        toolchain,
        emulate=asked.emulate,
        custom_ops=tuple(map(Path, asked.custom_ops)),
    )
    compared = (
        None
        if asked.reference is None
        else compare_with(session, Path(asked.reference), precision=asked.precision)
    )
    seconds = time.perf_counter() - loaded
    return Result(load_seconds=loaded - started, seconds=seconds, compared=compared)


def _measure(asked: MeasureRequest) -> Result:
    from aotpack.builder.jobs.measure import measure

    measurement = measure(
        asked.variant,
        Path(asked.model),
        asked.inputs,
        runs=asked.runs,
        seconds=asked.seconds,
        emulate=asked.emulate,
        custom_ops=tuple(map(Path, asked.custom_ops)),
    )
    return Result(measurement=measurement)


if __name__ == "__main__":
    _die_with_the_parent()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Some vendors' libraries abort or hang when the interpreter tears them down; the work is done.
    os._exit(0)
