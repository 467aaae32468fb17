"""Writing the part of a mod that belongs to one tile of the scores: some queries against some ranges of keys.

Positions and masks are known, so most of a mod disappears: conditions that hold all over the tile are left
out, and a mask becomes one constant that is added, 0 or -inf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from aotpack.flex.capabilities import Capabilities
from aotpack.flex.emit import Array, Dim, Emitter, numpy_type
from aotpack.flex.mask import Region, region_of
from aotpack.flex.program import Program, Value, run_node

__all__ = ["PASS", "Bank", "Tile", "strip_cost", "write_tile"]

#: What one more elementwise op adds to a score, in units of the time it takes (`aotpack.flex.choose`).
PASS = 0.1
#: The opset that brought TensorScatter.
_UPDATES = 24


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """A value on one tile: known, or under a name; `hidden` is a mask still to be added to it."""

    array: Array | None = None
    name: str = ""
    hidden: Array | None = None
    #: Whether it has the shape of the scores, and not one that broadcasts to it.
    whole: bool = False
    #: How a known value is made from smaller ones.
    made_by: onnx.NodeProto | None = None
    made_of: tuple[Tile | None, ...] = ()


class Bank:
    """The constants of one node, and how much memory they may take together.

    Optimisers fold what depends on constants only, so a mask that is put together from few small ones would
    still take L x S in the session. Beyond the budget they are therefore tied to a value that a run brings.

    Args:
        emitter: to write to.
        anchor: some value of rank 4 that a run brings.
        budget: elements that constants may take.

    """

    def __init__(self, emitter: Emitter, anchor: str, budget: int = 1 << 20) -> None:
        self.emitter = emitter
        self._anchor = anchor
        self._budget = budget
        self._kept: set[str] = set()

    def fits(self, array: Array) -> bool:
        """Whether `array` may be a constant; if so, it is counted."""
        if array.size <= 64:
            return True
        key = hashlib.sha256(array.tobytes()).hexdigest() + str(array.shape)
        if key not in self._kept and array.size <= self._budget:
            self._budget -= array.size
            self._kept.add(key)
        return key in self._kept

    def write(self, array: Array) -> str:
        """The name of a constant."""
        return self.emitter.constant(
            array.reshape(-1)[:1].reshape((1,) * array.ndim) if _uniform(array) else array
        )

    def loose(self, array: Array) -> str:
        """The name of a constant that no optimiser takes for one."""
        emitter, element = self.emitter, helper.np_dtype_to_tensor_dtype(array.dtype)
        axes = emitter.ints(0, 1, 2, 3)
        corner = emitter.op("Slice", self._anchor, emitter.ints(0, 0, 0, 0), emitter.ints(1, 1, 1, 1), axes)
        same = emitter.op("Cast", corner, to=onnx.TensorProto.FLOAT)
        same = emitter.op("Equal", same, same)
        # False for every input, numbers or not.
        never = emitter.op("And", same, emitter.op("Not", same))
        if array.ndim != 4:
            # A table must stay of its rank.
            never = emitter.op("Reshape", never, emitter.ints(*[1] * array.ndim))
        if element == onnx.TensorProto.BOOL:
            return emitter.op("Or", self.write(array), never)
        return emitter.op("Add", self.write(array), emitter.op("Cast", never, to=element))

    def joined(self, array: Array, columns: int = 64) -> str:
        """`array`, put together at run time from parts of `columns` columns; equal parts are kept once."""
        parts, start = [], 0
        while start < array.shape[-1]:
            stop = min(start + columns, array.shape[-1])
            first = array.reshape(-1, array.shape[-1])[0, start]
            if (array[..., start:stop] == first).all():
                while stop < array.shape[-1] and (array[..., stop : stop + columns] == first).all():
                    stop = min(stop + columns, array.shape[-1])
                shape = self.emitter.ints(*array.shape[:-1], stop - start)
                parts.append(self.emitter.op("Expand", self.loose(first.reshape((1,) * array.ndim)), shape))
            else:
                parts.append(self.loose(array[..., start:stop]))
            start = stop
        return parts[0] if len(parts) == 1 else self.emitter.op("Concat", *parts, axis=-1)


def write_tile(
    program: Program,
    bank: Bank,
    outer: Mapping[str, str],
    score: str,
    region: Region,
    capabilities: Capabilities,
    batch: Dim,
) -> str:
    """Write what a mod does to the scores of a tile; returns the name of the result.

    Args:
        program: of the mod.
        bank: to write to.
        outer: the names of the program's data.
        score: the name of the scores of this tile.
        region: that the tile takes.
        capabilities: of the target.
        batch: the first dimension of the scores.

    """
    writer = _Writer(program, bank, outer, region, capabilities, batch)
    tiles: list[Tile] = []
    for value in program.values:
        if value.kind == "score":
            tiles.append(Tile(name=score, whole=True))
        elif value.kind == "const":
            assert value.array is not None
            tiles.append(Tile(array=value.array if value.table else region_of(value.array, program, region)))
        elif value.kind == "data":
            tiles.append(Tile(name=writer.data(value)))
        else:
            tiles.append(writer.step(value, [None if i is None else tiles[i] for i in value.inputs]))
    name = writer.name(tiles[-1])
    if tiles[-1].whole:
        return name
    return bank.emitter.op("Expand", name, bank.emitter.op("Shape", score))


def strip_cost(strip: int, keys: int, capabilities: Capabilities, opset: int) -> float:
    """The keys' worth of passes that a mask takes which hides some of `strip` adjacent ones among `keys`."""
    if not capabilities.updates_in_place or opset < _UPDATES:
        return keys
    # To take the strip out and to write it back is another pass over it.
    return min(keys, 2 * strip)


class _Writer:
    def __init__(
        self,
        program: Program,
        bank: Bank,
        outer: Mapping[str, str],
        region: Region,
        capabilities: Capabilities,
        batch: Dim,
    ) -> None:
        self.program, self.bank, self.outer, self.region = program, bank, outer, region
        self.capabilities, self.batch = capabilities, batch
        self.emitter = bank.emitter

    def data(self, value: Value) -> str:
        name = self.outer[value.name]
        _, heads, length, width = self.program.shape
        rank = len(value.shape)
        if value.table:
            return name
        if rank >= 3 and value.shape[-3] == heads > 1 and self.region.heads != (0, heads):
            name = self._slice(name, *self.region.heads, axis=rank - 3)
        if rank >= 2 and value.shape[-2] == length > 1 and self.region.queries != (0, length):
            name = self._slice(name, *self.region.queries, axis=rank - 2)
        if rank >= 1 and value.shape[-1] == width > 1 and self.region.keys != ((0, width),):
            parts = [self._slice(name, low, high, axis=rank - 1) for low, high in self.region.keys]
            name = parts[0] if len(parts) == 1 else self.emitter.op("Concat", *parts, axis=rank - 1)
        return name

    def step(self, value: Value, inputs: Sequence[Tile | None]) -> Tile:
        node = value.node
        assert node is not None
        given = [item for item in inputs if item is not None]
        if all(item.array is not None for item in given):
            names = [name for name in node.input if name]
            arrays = {
                name: item.array for name, item in zip(names, given, strict=True) if item.array is not None
            }
            return Tile(
                array=run_node(node, arrays, self.program.opset)[0], made_by=node, made_of=tuple(inputs)
            )
        return self._simpler(value, node, given) or self._run(node, inputs)

    def name(self, tile: Tile) -> str:
        """The name of a tile, written now if it has none."""
        array = tile.array
        if array is not None:
            if _uniform(array) or self.bank.fits(array):
                return self.bank.write(array)
            if tile.made_by is not None and any(item and item.array is not None for item in tile.made_of):
                return self._run(tile.made_by, tile.made_of).name
            return self.bank.loose(array)
        if tile.hidden is None:
            return tile.name
        strip = self._strip(tile)
        if strip is None:
            return self._masked(tile.name, tile.hidden)
        low, high = strip
        part = self._masked(self._slice(tile.name, low, high, axis=3), tile.hidden[..., low:high])
        assert isinstance(self.batch, int)
        places = self.emitter.ints(*[low] * self.batch)
        return self.emitter.op("TensorScatter", tile.name, part, places, axis=3)

    def _masked(self, name: str, hidden: Array) -> str:
        fits = self.bank.fits(hidden)
        mask = self.bank.write(hidden) if fits else self.bank.joined(hidden)
        return self.emitter.op("Add", name, mask)

    def _strip(self, tile: Tile) -> tuple[int, int] | None:
        """The first key of the tile that its mask hides from some query and the one after the last.

        None if the mask is better added to all of them.
        """
        assert tile.hidden is not None
        keys = sum(end - start for start, end in self.region.keys)
        if not tile.whole or tile.hidden.shape[-1] != keys or not isinstance(self.batch, int):
            return None
        hides = np.flatnonzero((tile.hidden == -np.inf).reshape(-1, tile.hidden.shape[-1]).any(axis=0))
        low, high = int(hides[0]), int(hides[-1]) + 1
        first, last = self.region.queries
        saved = keys - strip_cost(high - low, keys, self.capabilities, self.program.opset)
        rows = self.batch * (self.region.heads[1] - self.region.heads[0]) * (last - first)
        # Two more nodes have to pay.
        return (low, high) if PASS * rows * saved > 2 * self.capabilities.node_cost else None

    def _run(self, node: onnx.NodeProto, inputs: Sequence[Tile | None]) -> Tile:
        names = {
            name: self.name(item) for name, item in zip(node.input, inputs, strict=True) if item is not None
        }
        whole = any(item.whole for item in inputs if item is not None)
        return Tile(name=self.emitter.copy(node, names)[0], whole=whole)

    def _simpler(self, value: Value, node: onnx.NodeProto, inputs: Sequence[Tile]) -> Tile | None:
        """What is left of a step if one of its inputs is known and makes it trivial."""
        if node.op_type == "Where":
            condition, then, other = inputs
            if condition.array is None:
                return self._hide_by_data(condition, then, other, value)
            if condition.array.all():
                return then if then.array is None else None
            if not condition.array.any():
                return other if other.array is None else None
            if _is_minus_inf(other) and then.array is None:
                return self._hide(then, ~condition.array, value)
            if _is_minus_inf(then) and other.array is None:
                return self._hide(other, condition.array, value)
            return None
        if node.op_type not in _NEUTRAL or len(inputs) != 2:
            return None
        known, named = (inputs[0], inputs[1]) if inputs[0].array is not None else (inputs[1], inputs[0])
        if known.array is None:
            return None
        if node.op_type in {"Sub", "Div"} and known is inputs[0]:
            return None
        if (known.array == _NEUTRAL[node.op_type]).all():
            return named
        if (
            node.op_type == "Add"
            and known.array.dtype.kind == "f"
            and np.isin(known.array, (0.0, -np.inf)).all()
        ):
            return self._hide(named, known.array == -np.inf, value)
        return None

    def _hide_by_data(self, condition: Tile, then: Tile, other: Tile, value: Value) -> Tile | None:
        """A mask that captured data decide, added too: made once for all heads, not in each."""
        if condition.whole or not (_is_minus_inf(then) or _is_minus_inf(other)):
            return None
        kept = other if _is_minus_inf(then) else then
        if not kept.whole:
            return None
        kind = numpy_type(value.element_type)
        ends = [self.emitter.constant(np.asarray(number, kind)) for number in (0, -np.inf)]
        if kept is other:
            ends.reverse()
        added = self.emitter.op("Where", condition.name, *ends)
        return Tile(name=self.emitter.op("Add", self.name(kept), added), whole=True)

    def _hide(self, tile: Tile, hidden: Array, value: Value) -> Tile:
        kind = numpy_type(value.element_type)
        mask = np.where(hidden, kind.type(-np.inf), kind.type(0)).astype(kind)
        return Tile(
            name=tile.name, whole=tile.whole, hidden=mask if tile.hidden is None else tile.hidden + mask
        )

    def _slice(self, name: str, low: int, high: int, axis: int) -> str:
        ints = self.emitter.ints
        return self.emitter.op("Slice", name, ints(low), ints(high), ints(axis))


#: The operand that leaves the other one as it is.
_NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "And": True, "Or": False}


def _is_minus_inf(tile: Tile) -> bool:
    return tile.array is not None and tile.array.dtype.kind in "fV" and bool((tile.array == -np.inf).all())


def _uniform(array: Array) -> bool:
    return bool((array == array.flat[0]).all())
