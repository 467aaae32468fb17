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
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Inputs by name; others are made up.", show_default=False),
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
        if inputs is not None:
            arrays = {**_read_file(inputs, opened.component(component).inputs), **arrays}
        own = {name: array.shape for name, array in arrays.items() if getattr(array, "size", 0)}
        shapes = {**shapes_of(shape), **own}
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
    feeds, seconds = _feeds(session, arrays, sizes)
    results: list[Any] = []
    while len(seconds) < runs + 1:
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
    session: onnxruntime.InferenceSession, arrays: Mapping[str, Any], sizes: Mapping[str, Sizes | None]
) -> tuple[dict[str, Any], list[float]]:
    """What the session is run on: what is given, the rest made up; and how long the first run took.

    Nothing was run where all inputs are given.
    """
    from aotpack.builder.numerics.inputs import find_inputs, session_inputs
    from aotpack.builder.numerics.samples import as_input

    wanted = {info.name: info for info in session_inputs(session.get_inputs())}
    given: dict[str, Any] = {}
    for name, value in arrays.items():
        if name not in wanted:
            raise UnknownName("input", name, wanted)
        given[name] = value if isinstance(value, list) else as_input(value, wanted[name], f"input {name}")
    if wanted.keys() <= given.keys():
        return {name: given[name] for name in wanted}, []
    # What was asked for, where the variant takes any size.
    infos = [
        info.model_copy(update={"shape": sizes.get(name) or info.shape}) for name, info in wanted.items()
    ]
    seconds: list[float] = []

    def run_once(feeds: Mapping[str, Any]) -> list[Any]:
        started = time.perf_counter()
        outputs: list[Any] = session.run(None, dict(feeds))
        seconds.append(time.perf_counter() - started)
        return outputs

    found = find_inputs(run_once, infos, given=given)
    return dict(found.feeds), seconds[:1]


def _read(text: str) -> tuple[str, Any]:
    import numpy as np

    name, separator, path = text.rpartition("=")
    if not separator or not name:
        raise UsageError("is not an input", where=f"--input {text}", expected="NAME=FILE.npy")
    try:
        return name, np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            "cannot be read", where=f"--input {text}", found=error, expected="a .npy file"
        ) from None


def _read_file(path: Path, inputs: Sequence[TensorInfo]) -> dict[str, Any]:
    from aotpack.builder.numerics.samples import read_sample
    from aotpack.builder.numerics.values import feeds_of

    return feeds_of(read_sample(path, inputs, some=True).items(), [info.name for info in inputs])


def _infos(values: Mapping[str, Any]) -> tuple[TensorInfo, ...]:
    """Of each tensor, and of the tensors of each sequence or map."""
    from aotpack.builder.numerics.values import is_text, leaves
    from aotpack.manifest import TensorInfo

    return tuple(
        TensorInfo(
            name=name + path, dtype="string" if is_text(array) else str(array.dtype), shape=array.shape
        )
        for name, value in values.items()
        for path, array in leaves(value)
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
