"""``aotpack run``.

::

    aotpack run m.aotpack
    aotpack run m.aotpack --input x=x.npy --devices cpu
    aotpack run m.aotpack --variant ort-cpu --threads 1
    aotpack run m.aotpack --shape x=1,576
    aotpack run m.aotpack --on-miss compile
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import typer

from aotpack.cli import output
from aotpack.cli.choice import Shapes, shapes_of, takes_policy
from aotpack.cli.options import AsJson, CustomOps, OneComponent, PackagePath
from aotpack.common.vendor_text import brief
from aotpack.errors import UnknownName, UsageError

if TYPE_CHECKING:
    import onnxruntime

    from aotpack.documents.verbs import ComponentRunDocument
    from aotpack.manifest.values import Component, TensorInfo
    from aotpack.runtime.load_options import LoadOptions, OnMiss
    from aotpack.runtime.loading import Loaded
    from aotpack.runtime.package import Package
    from aotpack.selection.policy import Policy
    from aotpack.selection.select import Selection
    from aotpack.selection.shapes import Sizes

__all__ = ["run"]

#: ONNX Runtime starts each thread at once, whatever the machine has; no CPU has so many cores.
_MAX_THREADS = 1024


@takes_policy()
def run(
    package: PackagePath,
    component: OneComponent = None,
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
    on_miss: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="If only the portable variant fits: portable, compile, compile-in-background or error.",
        ),
    ] = "portable",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=_MAX_THREADS, help="ONNX Runtime's threads for one operator.", show_default="cores"
        ),
    ] = None,
    inter_threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=_MAX_THREADS,
            help="Its threads for operators side by side.",
            show_default="one by one",
        ),
    ] = None,
    custom_ops: CustomOps = None,
    as_json: AsJson = False,
    *,
    policy: Policy,
) -> None:
    """Load the best variant of each component, and run it.

    Inputs that are not given are made up.
    """
    from aotpack.builder.numerics.samples import as_input
    from aotpack.documents.verbs import RunDocument
    from aotpack.runtime.load_options import LoadOptions
    from aotpack.runtime.package import open_package
    from aotpack.selection.custom_ops import checked_libraries

    options = LoadOptions(
        policy=policy,
        on_miss=cast("OnMiss", on_miss),
        session_options=functools.partial(_set_threads, threads, inter_threads),
        custom_ops=checked_libraries(custom_ops or (), where="--custom-ops"),
    )
    arrays = dict(_read(text) for text in given or [])
    with open_package(package) as opened:
        infos = _all_inputs(opened.manifest.components)
        if inputs is not None:
            arrays = {**_read_file(inputs, list(infos.values())), **arrays}
        for name, array in arrays.items():
            if name not in infos:
                raise UnknownName("input", name, infos)
            if not isinstance(array, list):
                as_input(array, infos[name], f"input {name}")
        own = {name: array.shape for name, array in arrays.items() if getattr(array, "size", 0)}
        shapes = {**shapes_of(shape), **own}
        options = replace(options, shapes=shapes)
        started = time.perf_counter()
        selections = opened.select_all(options, component=component)
        selecting = (time.perf_counter() - started) / len(selections)
        loads = [_load(opened, selection, options, selecting) for selection in selections]
    names = [load.component for load in loads]
    first, *others = [_run(load, arrays, runs) for load in loads]
    document = RunDocument(package=str(package), others=tuple(others), **msgspec.structs.asdict(first))
    if as_json:
        output.print_json(document)
    else:
        for each in (first, *others):
            with output.component(each.component, names):
                _show(each)
    compiling = [load.loaded.compiling for load in loads if load.loaded.compiling is not None]
    if compiling:
        output.flush()
        output.note("compiling for this machine, for the next load")
    for thread in compiling:
        thread.join()


def _all_inputs(components: Sequence[Component]) -> dict[str, TensorInfo]:
    """The inputs of all components by name; a size that is another in another component is left open."""
    found: dict[str, TensorInfo] = {}
    for info in (info for component in components for info in component.inputs):
        other = found.setdefault(info.name, info)
        if other.shape == info.shape:
            continue
        same_rank = other.shape is not None and info.shape is not None and len(other.shape) == len(info.shape)
        shape = (
            tuple(a if a == b else None for a, b in zip(other.shape or (), info.shape or (), strict=True))
            if same_rank
            else None
        )
        found[info.name] = info.replace(shape=shape)
    return found


@dataclass(frozen=True, slots=True)
class _Load:
    component: str
    loaded: Loaded
    #: Of the inputs, as far as they were asked for.
    sizes: Mapping[str, Sizes | None]
    seconds: float


def _load(package: Package, selection: Selection, options: LoadOptions, selecting: float) -> _Load:
    from aotpack.selection.shapes import bind

    started = time.perf_counter()
    loaded = package.load_with(options, selection)
    seconds = selecting + time.perf_counter() - started
    sizes = bind(package.component(selection.component).inputs, selection.shapes).shapes
    return _Load(selection.component, loaded, sizes, seconds)


def _run(load: _Load, arrays: dict[str, Any], runs: int) -> ComponentRunDocument:
    from aotpack.documents.verbs import ComponentRunDocument, RefusalDocument

    loaded = load.loaded
    session, variant = loaded.session, loaded.candidate.variant
    feeds, seconds = _feeds(session, arrays, load.sizes)
    results: list[Any] = []
    while len(seconds) < runs + 1:
        started = time.perf_counter()
        try:
            results = session.run(None, feeds)
        except Exception as error:
            raise UsageError(
                "does not run on these inputs", where=variant.id, found=brief(str(error))
            ) from error
        seconds.append(time.perf_counter() - started)
    options = session.get_session_options()
    return ComponentRunDocument(
        component=load.component,
        variant=variant.id,
        target=variant.target,
        ep=variant.ep,
        inputs=_infos(feeds),
        outputs=_infos(dict(zip([value.name for value in session.get_outputs()], results, strict=True))),
        load_seconds=load.seconds,
        first_run_seconds=seconds[0],
        run_seconds=statistics.median(seconds[1:]),
        runs=runs,
        threads=options.intra_op_num_threads,
        inter_threads=options.inter_op_num_threads,
        refused=tuple(RefusalDocument.of(refusal) for refusal in loaded.refused),
    )


def _set_threads(intra: int | None, inter: int | None, options: onnxruntime.SessionOptions) -> None:
    import onnxruntime as ort

    if intra is not None:
        options.intra_op_num_threads = intra
    if inter is not None:
        options.inter_op_num_threads = inter
        # Without it these threads have nothing to do.
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL


def _show(document: ComponentRunDocument) -> None:
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
        # Another component's may be among them.
        if name in wanted:
            given[name] = value if isinstance(value, list) else as_input(value, wanted[name], f"input {name}")
    if wanted.keys() <= given.keys():
        return {name: given[name] for name in wanted}, []
    # What was asked for, where the variant takes any size.
    infos = [info.replace(shape=_sizes(info.shape, sizes.get(name))) for name, info in wanted.items()]
    seconds: list[float] = []

    def run_once(feeds: Mapping[str, Any]) -> list[Any]:
        started = time.perf_counter()
        outputs: list[Any] = session.run(None, dict(feeds))
        seconds.append(time.perf_counter() - started)
        return outputs

    found = find_inputs(run_once, infos, given=given)
    return dict(found.feeds), seconds[:1]


def _sizes(own: Sizes | None, asked: Sizes | None) -> Sizes | None:
    """The sizes of a variant's input, and what was asked for where it takes any."""
    if own is None or asked is None or len(own) != len(asked):
        return own
    return tuple(
        mine if isinstance(mine, int) and mine > 0 else size for mine, size in zip(own, asked, strict=True)
    )


def _read(text: str) -> tuple[str, Any]:
    from aotpack.builder.numerics.samples import read_array

    name, separator, path = text.rpartition("=")
    if not separator or not name:
        raise UsageError("is not an input", where=f"--input {text}", expected="NAME=FILE.npy")
    try:
        return name, read_array(Path(path))
    except UsageError as error:
        raise error.at(f"--input {name}") from None


def _read_file(path: Path, inputs: Sequence[TensorInfo]) -> dict[str, Any]:
    from aotpack.builder.numerics.samples import read_sample
    from aotpack.builder.numerics.values import feeds_of

    return feeds_of(read_sample(path, inputs, some=True).items(), [info.name for info in inputs])


def _infos(values: Mapping[str, Any]) -> tuple[TensorInfo, ...]:
    """Of each tensor, and of the tensors of each sequence or map."""
    from aotpack.builder.numerics.values import is_text, leaves
    from aotpack.manifest.values import TensorInfo

    return tuple(
        TensorInfo(
            name=name + path, dtype="string" if is_text(array) else str(array.dtype), shape=array.shape
        )
        for name, value in values.items()
        for path, array in leaves(value)
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
