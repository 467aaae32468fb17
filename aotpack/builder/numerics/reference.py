"""What the variants are compared with: the portable model, run in a worker of its own.

One file holds all of it (`aotpack.builder.numerics.values.ArrayFile`), so that it travels to another
machine::

    meta                    JSON: names, which outputs are random, whose inputs
    <sample>/in/<input>     what it was run on
    <sample>/out/<output>   what came out, by the output's index and the path in it
    noise/<precision>/<output>/<axis>   what moving the inputs changed: the mean square of each slice
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from aotpack.builder.numerics.hints import hints_of, probabilities_of
from aotpack.builder.numerics.inputs import Hints, find_inputs, made_inputs, session_inputs
from aotpack.builder.numerics.measure import Comparison, Noise
from aotpack.builder.numerics.values import (
    Array,
    ArrayFile,
    ArrayWriter,
    compare_all,
    feeds_of,
    is_text,
    leaves,
)
from aotpack.common.values import Value
from aotpack.errors import CompileError, ModelError
from aotpack.selection.custom_ops import register

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from aotpack.manifest.values import TensorInfo

__all__ = ["MOVES", "NoiseShares", "ReferenceMeta", "make_reference", "noise_of"]

#: By how much inputs and weights are moved to find the noise at a precision, relative to each element.
#: float16 keeps 11 bits and bfloat16 8; of float32's 24 bits all of the operations of a deep model leave
#: about 17.
MOVES: Mapping[str, float] = MappingProxyType({"f32": 2.0**-17, "f16": 2.0**-11, "bf16": 2.0**-8})

#: Times that each sample is moved, for each precision.
_DRAWS = 2
#: Seconds after which no further sample is run, and no further noise is looked for beyond the first sample's.
_SECONDS = 10.0
#: Bytes of weights that are moved: a second copy of a large model is not worth its memory.
_MOVED_WEIGHTS = 128 * 1024**2
#: Elements. Smaller tensors are sizes, factors and limits, which mean one thing exactly.
_LEAST_WEIGHTS = 16
#: Two runs of one model that differ by more of an output's scale draw random numbers.
_RANDOM = 1e-3


class NoiseShares(Value, kw_only=True):
    """The parts of a `Noise` that are one number."""

    unequal: float
    rows: float


class ReferenceMeta(Value, kw_only=True):
    """What a reference says of itself."""

    input_names: tuple[str, ...]
    outputs: tuple[str, ...]
    samples: int
    #: ``given`` by the user, or ``made``.
    inputs: Literal["given", "made"]
    #: Outputs, by index and path, that differ between two runs of the model.
    random: tuple[str, ...] = ()
    #: Those whose sizes depend on the data.
    varies: tuple[str, ...] = ()
    #: Outputs, by name, that are probabilities (`aotpack.builder.numerics.hints.probabilities_of`).
    probabilities: tuple[str, ...] = ()
    #: Those that cannot be compared, and why.
    unknown: dict[str, str] = {}
    #: Precision and output to its noise.
    noise: dict[str, dict[str, NoiseShares]] = {}


def make_reference(
    model: Path,
    output: Path,
    *,
    given: Path | None = None,
    inputs: Sequence[TensorInfo] | None = None,
    samples: int = 4,
    precisions: Iterable[str] = ("f32",),
    custom_ops: Sequence[Path] = (),
) -> ReferenceMeta:
    """Run the portable model and write what came out of it to `output`.

    Args:
        model: any EP can run it; its shapes are fixed.
        output: the file to write.
        given: an `ArrayFile` of samples of the user's; None: they are made up.
        inputs: of the model, with more of their sizes fixed than it says itself.
        samples: how many are made up, each with a seed of its own.
        precisions: that the variants compute in: keys of `MOVES`.
        custom_ops: libraries of its custom operators.

    Raises:
        CompileError: it does not load, or refuses its inputs; the message says which.
    """
    import onnx

    started = time.monotonic()
    run = _Run(model, custom_ops=custom_ops)
    infos = list(inputs if inputs is not None else session_inputs(run.session.get_inputs()))
    with ArrayWriter(output) as writer:
        graph = onnx.load(model, load_external_data=False)
        probabilities = probabilities_of(graph)
        found = _Samples(hints_of(graph) if given is None else {}, infos, run, given, samples)
        # It may hold all weights, which are not needed again.
        del graph
        comparisons: dict[str, Comparison] = {}
        varies = set(_open_outputs(run.session))
        unknown: dict[str, str] = {}
        sizes: dict[str, tuple[int, ...]] = {}
        count = 0
        for feeds, outputs in found:
            for name, value in feeds.items():
                for path, array in leaves(value):
                    writer.put(f"{count}/in/{name}{path}", array)
            again = run(feeds)
            for index, (first, second) in enumerate(zip(outputs, again, strict=True)):
                try:
                    pairs = list(compare_all(leaves(second), leaves(first)))
                except TypeError as error:
                    unknown[f"{index}/"] = str(error)
                    continue
                for path, other, array in pairs:
                    key = f"{index}/{path}"
                    comparisons.setdefault(key, Comparison(key)).add(other, array)
                    if sizes.setdefault(key, array.shape) != array.shape:
                        varies.add(key)
                    writer.put(f"{count}/out/{key}", array)
            count += 1
            if time.monotonic() - started > _SECONDS:
                break
    if not count:
        raise CompileError(found.refusal or "there are no inputs to run the portable model on")
    random = {key for key, each in comparisons.items() if each.measured().error > _RANDOM}
    meta = ReferenceMeta(
        input_names=tuple(info.name for info in infos),
        outputs=run.names,
        samples=count,
        inputs="made" if given is None else "given",
        random=tuple(sorted(random)),
        varies=tuple(sorted(varies - random)),
        unknown=unknown,
        probabilities=tuple(sorted(probabilities)),
    )
    del run, found
    moved = functools.partial(_moved_run, model, custom_ops)
    return _add_noise(moved, output, meta, set(comparisons) - random, sorted(set(precisions)), started)


class _Run:
    """A session as a function of its feeds.

    Args:
        model: what it runs: a file, or its bytes.
        weights: in place of the model's own, by name.
        custom_ops: libraries of its custom operators.
    """

    def __init__(
        self,
        model: Path | bytes,
        weights: Mapping[str, Array] = MappingProxyType({}),
        *,
        custom_ops: Sequence[Path] = (),
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        register(options, custom_ops)
        # Beyond it ORT rounds to int8 what it multiplies with quantised weights: no reference is off by 1e-2.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # The session reads them as long as it lives, and does not own them.
        self._weights = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        for name, value in self._weights.items():
            options.add_initializer(name, value)
        try:
            self.session: onnxruntime.InferenceSession = ort.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:
            raise CompileError(
                f"ONNX Runtime {ort.__version__} does not load the portable model: {error}"
            ) from error
        self.names = tuple(value.name for value in self.session.get_outputs())

    def __call__(self, feeds: Mapping[str, Any]) -> list[Any]:
        outputs: list[Any] = self.session.run(list(self.names), dict(feeds))
        return outputs


class _Samples:
    """The samples one after the other: feeds, and what the model makes of them."""

    def __init__(
        self, hints: Hints, infos: Sequence[TensorInfo], run: _Run, given: Path | None, count: int
    ) -> None:
        self._count = count
        self._hints = hints
        self._infos = infos
        self._run = run
        self._given = given
        #: Why there is none.
        self.refusal: str | None = None

    def __iter__(self) -> Any:
        return self._made() if self._given is None else self._of_the_user(self._given)

    def _made(self) -> Any:
        try:
            found = find_inputs(self._run, self._infos, self._hints)
        except ModelError as error:
            self.refusal = str(error)
            return
        yield found.feeds, found.outputs
        if not self._infos:
            return
        for seed in range(1, self._count):
            feeds = made_inputs(self._infos, seed=seed, way=found.way, hints=self._hints)
            # What one seed gives may be out of bounds where another's is not.
            outputs: list[Any] | None = None
            with contextlib.suppress(Exception):
                outputs = self._run(feeds)
            if outputs is not None:
                yield feeds, outputs

    def _of_the_user(self, given: Path) -> Any:
        with ArrayFile(given) as file:
            count = int(file.get_json("count"))
            for index in range(count):
                feeds = feeds_of(file.under(f"{index}/in/"), (info.name for info in self._infos))
                try:
                    outputs = self._run(feeds)
                except Exception as error:
                    where = file.get_json("names")[index]
                    raise CompileError(
                        f"the portable model refuses the inputs of {where}: {error}"
                    ) from error
                yield feeds, outputs


def _open_outputs(session: onnxruntime.InferenceSession) -> list[str]:
    """Outputs with a size that does not follow from the inputs': it depends on the data."""
    symbols = {dim for value in session.get_inputs() for dim in value.shape or () if isinstance(dim, str)}
    known = all(isinstance(dim, int) for value in session.get_inputs() for dim in value.shape or ())
    return [
        f"{index}/"
        for index, value in enumerate(session.get_outputs())
        if known and any(not isinstance(dim, int) and dim not in symbols for dim in value.shape or ())
    ]


# Noise ------------------------------------------------------------------------------------------------------


#: Gives the model with its weights moved by a relative amount.
_Moved = Callable[[float, np.random.Generator], "_Run"]


def _add_noise(
    moved: _Moved,
    output: Path,
    meta: ReferenceMeta,
    keys: set[str],
    precisions: Sequence[str],
    started: float,
) -> ReferenceMeta:
    """Write the noise to `output`, and what the reference says of itself."""
    found: dict[str, dict[str, Noise]] = {}
    varies = set(meta.varies)
    for precision in precisions:
        found[precision] = _noise(moved, output, meta, keys, precision, varies, started)
    shares = {
        precision: {key: NoiseShares(unequal=each.unequal, rows=each.rows) for key, each in noises.items()}
        for precision, noises in found.items()
    }
    meta_now = meta.replace(noise=shares, varies=tuple(sorted(varies)))
    with ArrayWriter(output, more=True) as writer:
        for precision, noises in found.items():
            for key, noise in noises.items():
                for axis, squares in noise.squares.items():
                    writer.put(f"noise/{precision}/{key}/{axis}", squares)
        writer.put_json("meta", meta_now.to_builtins())
    return meta_now


def _noise(
    moved_run: _Moved,
    output: Path,
    meta: ReferenceMeta,
    keys: set[str],
    precision: str,
    varies: set[str],
    started: float,
) -> dict[str, Noise]:
    """What moving the inputs and the weights changes at a precision. Nothing, where the model then fails."""
    amount = MOVES[precision]
    random = np.random.Generator(np.random.PCG64(2))
    comparisons: dict[str, Comparison] = {}
    try:
        run = moved_run(amount, random)
        with ArrayFile(output) as file:
            for sample in range(meta.samples):
                feeds = feeds_of(file.under(f"{sample}/in/"), meta.input_names)
                for _ in range(_DRAWS):
                    moved = {name: _moved(value, amount, random) for name, value in feeds.items()}
                    for index, value in enumerate(run(moved)):
                        wanted = [
                            (path, array)
                            for path, array in file.under(f"{sample}/out/{index}/")
                            if f"{index}/{path}" in keys
                        ]
                        for path, ours, theirs in compare_all(leaves(value), wanted) if wanted else ():
                            key = f"{index}/{path}"
                            if ours.shape != theirs.shape:
                                varies.add(key)
                            comparisons.setdefault(key, Comparison(key, varies=True)).add(ours, theirs)
                if time.monotonic() - started > 2 * _SECONDS:
                    break
    except Exception:
        # Weights that are moved can be weights that a model refuses. There is then no noise to excuse
        # anything.
        return {}
    return {key: each.noise() for key, each in comparisons.items()}


def _moved(value: Any, amount: float, random: np.random.Generator) -> Any:
    if isinstance(value, list):
        return [_moved(item, amount, random) for item in value]
    if not isinstance(value, np.ndarray) or is_text(value) or value.dtype.kind != "f":
        return value
    factors = 1 + amount * random.uniform(-1, 1, value.shape)
    return np.asarray(value * factors).astype(value.dtype)


def _moved_run(model: Path, custom_ops: Sequence[Path], amount: float, random: np.random.Generator) -> _Run:
    """The model with its floating point weights moved, the smallest ones first.

    Inputs that are integers cannot be moved, and rounding happens behind them too.
    """
    import onnx
    from onnx import TensorProto, numpy_helper

    proto = onnx.load(model, load_external_data=False)
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
    weights = [
        tensor
        for tensor in proto.graph.initializer
        if tensor.data_type in floats and int(np.prod(tensor.dims)) >= _LEAST_WEIGHTS
    ]
    moved: dict[str, Array] = {}
    left = _MOVED_WEIGHTS
    for tensor in sorted(weights, key=lambda tensor: int(np.prod(tensor.dims))):
        array = numpy_helper.to_array(tensor, base_dir=str(model.parent))
        left -= array.nbytes
        if left < 0:
            break
        moved[tensor.name] = _moved(array, amount, random)
    scaled = _scale_constants(proto, amount, random)
    return _Run(proto.SerializeToString() if scaled else model, moved, custom_ops=custom_ops)


def _scale_constants(proto: onnx.ModelProto, amount: float, random: np.random.Generator) -> bool:
    """Move what ConstantOfShape nodes make, each index of its first axis alike; say whether there are any.

    Models whose weights were left out have such nodes instead (onnx's own light models). All of their
    channels are equal, and what they compute depends on the order in which it is added up.
    """
    from onnx import TensorProto, helper, numpy_helper

    shapes = {tensor.name: tensor for tensor in proto.graph.initializer}
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in shapes.values()):
        # Such a model is loaded from where its data is.
        return False
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        nodes.append(node)
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            continue
        shape = [int(size) for size in numpy_helper.to_array(shapes[node.input[0]])]
        if value is None or value.data_type != TensorProto.FLOAT or np.prod(shape) < _LEAST_WEIGHTS:
            continue
        factors = 1 + amount * random.uniform(-1, 1, (shape[0], *[1] * (len(shape) - 1)))
        name = node.output[0]
        node.output[0] = f"{name}/still"
        proto.graph.initializer.append(numpy_helper.from_array(factors.astype(np.float32), f"{name}/moved"))
        nodes.append(helper.make_node("Mul", [f"{name}/still", f"{name}/moved"], [name]))
    if len(nodes) == len(proto.graph.node):
        return False
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return True


def noise_of(file: ArrayFile, meta: ReferenceMeta, precision: str, key: str) -> Noise | None:
    """The noise of an output at a precision, if there is any."""
    shares = meta.noise.get(precision, {}).get(key)
    if shares is None:
        return None
    squares = {int(axis): array for axis, array in file.under(f"noise/{precision}/{key}/")}
    return Noise(squares=squares, unequal=shares.unequal, rows=shares.rows)
