"""``aotpack run``.

::

    aotpack run m.aotpack
    aotpack run m.aotpack --input x=x.npy --devices cpu
    aotpack run m.aotpack --shape x=1,576
    aotpack run m.aotpack --on-miss compile
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from aotpack.cli import output
from aotpack.cli.choice import Devices, Eps, Measured, MemoryLimit, Prefer, Shapes, policy_of, shapes_of
from aotpack.cli.options import AsJson, ComponentName, Emulate, PackagePath
from aotpack.errors import UnknownName, UsageError

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.documents import RunDocument
    from aotpack.load_options import OnMiss
    from aotpack.manifest import TensorInfo
    from aotpack.shapes import Sizes

__all__ = ["run"]


def run(
    package: PackagePath,
    component: ComponentName = None,
    variant: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this variant.", show_default=False)
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=FILE.npy", help="An input; others are made up.", show_default=False
        ),
    ] = None,
    shape: Shapes = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs after the first.")] = 10,
    devices: Devices = None,
    prefer: Prefer = "efficiency",
    ep: Eps = None,
    memory_limit: MemoryLimit = None,
    measured: Measured = False,
    on_miss: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="At nothing but portable: portable, compile, compile-in-background or error.",
        ),
    ] = "portable",
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="ONNX Runtime's threads for one operator.", show_default="cores"),
    ] = None,
    inter_threads: Annotated[
        int | None,
        typer.Option(min=1, help="Its threads for operators side by side.", show_default="one by one"),
    ] = None,
    emulate: Emulate = False,
    as_json: AsJson = False,
) -> None:
    """Load the best variant and run it, on given or made-up inputs."""
    from aotpack.documents import RefusalDocument, RunDocument
    from aotpack.package import open_package
    from aotpack.shapes import bind

    policy = policy_of(
        devices=devices,
        prefer=prefer,
        eps=ep,
        memory_limit=memory_limit,
        measured=measured,
        variant=variant,
        emulate=emulate,
    )
    arrays = dict(_read(text) for text in given or [])
    with open_package(package) as opened:
        shapes = {**shapes_of(shape), **{name: array.shape for name, array in arrays.items() if array.size}}
        started = time.perf_counter()
        selection = opened.select(component=component, policy=policy, shapes=shapes)
        loaded = opened.load_first(
            selection,
            on_miss=cast("OnMiss", on_miss),
            session_options=functools.partial(_set_threads, threads, inter_threads),
        )
        load_seconds = time.perf_counter() - started
        name = selection.component
        sizes = bind(opened.component(name).inputs, selection.shapes).shapes
    session = loaded.session
    options = session.get_session_options()
    feeds = _feeds(session, arrays, sizes)
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        try:
            results = session.run(None, feeds)
        except Exception as error:
            raise UsageError(
                "does not run on these inputs", where=loaded.candidate.id, found=error
            ) from error
        seconds.append(time.perf_counter() - started)
    document = RunDocument(
        package=str(package),
        component=name,
        variant=loaded.candidate.id,
        target=loaded.candidate.variant.target,
        ep=loaded.candidate.variant.ep,
        inputs=_infos(feeds),
        outputs=_infos(dict(zip([value.name for value in session.get_outputs()], results, strict=True))),
        load_seconds=load_seconds,
        first_run_seconds=seconds[0],
        run_seconds=statistics.median(seconds[1:]),
        runs=runs,
        threads=options.intra_op_num_threads,
        inter_threads=options.inter_op_num_threads,
        refused=tuple(RefusalDocument.of(refusal) for refusal in loaded.refused),
    )
    if as_json:
        output.print_json(document)
    else:
        _show(document)
    if loaded.compiling is not None:
        output.flush()
        output.note("compiling for this machine, for the next load")
        loaded.compiling.join()


def _set_threads(intra: int | None, inter: int | None, options: onnxruntime.SessionOptions) -> None:
    import onnxruntime as ort

    if intra is not None:
        options.intra_op_num_threads = intra
    if inter is not None:
        options.inter_op_num_threads = inter
        # Without it these threads have nothing to do.
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL


def _show(document: RunDocument) -> None:
    for refusal in document.refused:
        output.print_text(f"refused  {refusal.variant}: {refusal.reason}")
    output.print_text(f"variant  {document.variant} ({document.ep})")
    for kind, values in (("in", document.inputs), ("out", document.outputs)):
        for value in values:
            shape = "x".join(map(str, value.shape or ())) or "scalar"
            output.print_text(f"{kind:<9}{value.name}: {value.dtype} {shape}")
    output.print_text(
        f"time     load {_ms(document.load_seconds)}, first run {_ms(document.first_run_seconds)}, "
        f"then {_ms(document.run_seconds)} (median of {document.runs})"
    )


def _feeds(
    session: onnxruntime.InferenceSession, arrays: dict[str, Any], sizes: Mapping[str, Sizes | None]
) -> dict[str, Any]:
    from aotpack.builder.models.numerics import seeded_inputs

    wanted = {value.name: value for value in session.get_inputs()}
    for name in arrays:
        if name not in wanted:
            raise UnknownName("input", name, wanted)
    infos = _tensor_infos([value for name, value in wanted.items() if name not in arrays])
    # What was asked for, where the variant takes any size.
    sized = [info.model_copy(update={"shape": sizes.get(info.name) or info.shape}) for info in infos]
    made_up = seeded_inputs(sized)
    return {name: arrays[name] if name in arrays else made_up[name] for name in wanted}


def _read(text: str) -> tuple[str, Any]:
    import numpy as np

    name, separator, path = text.rpartition("=")
    if not separator or not name:
        raise UsageError("is not an input", where=f"--input {text}", expected="NAME=FILE.npy")
    try:
        return name, np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            "cannot be read", where=f"--input {text}", found=error, expected="a .npy file"
        ) from None


def _tensor_infos(values: Sequence[Any]) -> list[TensorInfo]:
    from aotpack.manifest import TensorInfo

    return [
        TensorInfo(name=value.name, dtype=_numpy_name(value.type), shape=tuple(value.shape))
        for value in values
    ]


def _numpy_name(ort_type: str) -> str:
    # ORT says tensor(float) where numpy says float32.
    name = ort_type.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _infos(arrays: dict[str, Any]) -> tuple[TensorInfo, ...]:
    from aotpack.manifest import TensorInfo

    return tuple(
        TensorInfo(name=name, dtype=str(value.dtype), shape=value.shape) for name, value in arrays.items()
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
