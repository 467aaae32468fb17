"""How far the outputs of a variant are from the reference's, each output on its own and every slice of it.

**Floating point.** For every axis of an output and every index along it, the *slice* is what stands at that
index in all samples: a channel of an image, a class of a classifier, a row. The error of a slice is the root
mean square of the difference over the slice's own scale, so that a channel of small numbers beside one of
large numbers is held to its own. The scale is the standard deviation, and not below `_OFFSET` of the root
mean square: a constant in place of what varies is an error of 1.

**Integers, booleans, strings.** The error is the share that differs of the elements that are not the most
common value: of a mask that is false nearly everywhere the true ones count.

**Noise.** The reference was run on moved inputs as well (`aotpack.builder.numerics.reference`). What differs
by less than `NOISE_MULTIPLE` times what that changed is *excused*: rounding, top-k, argmax and non-maximum
suppression jump.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from aotpack.builder.numerics.alignment import aligned
from aotpack.builder.numerics.values import Array, is_text
from aotpack.common.values import Count, Text, Value
from aotpack.manifest.values import MAX_RANK

__all__ = ["INFINITE", "NOISE_MULTIPLE", "Comparison", "Measured", "Noise", "Worst"]

#: A difference of this many times the reference's own noise is no fault.
NOISE_MULTIPLE = 4.0
#: What stands for an error without bound: JSON has no infinity. No tolerance reaches it.
INFINITE = 1e300
#: Beyond it a number stands for an infinity: masks are written as the least float, and float16 ends at 65504.
_HUGE, _HUGE_IN_HALF = 1e30, 6e4
#: The least scale of a slice, as a share of its root mean square: below it lies the rounding of a constant
#: offset.
_OFFSET = 0.05
#: A slice of fewer elements has no standard deviation that says anything.
_FEW = 16
#: A slice below this share of a typical one is a sum that cancels: what is left is rounding in float32.
_CANCELLED = 2.0**-20
#: The least scale of a slice of probabilities: what is far below it decides nothing.
_PROBABILITY = 1e-3
#: The least scale of a slice of few probabilities: nobody's threshold tells 0 from 0.002, which NPUs round to
#: 0, and made-up inputs may give nothing but such values.
_FEW_PROBABILITIES = 2.0**-6
#: The least step of a precision, absolute: float16 has subnormals of 2^-24, and a few operations lose some.
_LEAST: Mapping[str, float] = {"f16": 2.0**-21}
#: Elements that are compared at once, which bounds the memory.
_BLOCK = 1 << 22
#: Of one axis. A longer axis is a list of things, not one of channels.
_MOST_SLICES = 1 << 18
#: Of one axis, of fewer than `_FEW` elements each: such an axis is one of time, as that of a wave, and what
#: stands at one moment has no scale of its own.
_MOST_SMALL_SLICES = 4096
#: Slices of one axis and sample whose worst element is remembered.
_MOST_PEAKS = 1024


#: Of outputs: no less than 0. NaN is no number in a `Value`.
_Error = Annotated[float, Meta(ge=0)]


class Worst(Value, kw_only=True):
    """The element that is furthest off in the worst slice."""

    sample: Count
    index: Annotated[tuple[Count, ...], Meta(max_length=MAX_RANK)]
    found: Text
    expected: Text
    #: Such as ``index 3 of axis 1``; None: the output as a whole.
    slice: Text | None = None


class Measured(Value, kw_only=True):
    """One output against the reference's. What tolerance it is held to is not decided here."""

    #: The output's name, and the path in it (`aotpack.builder.numerics.values`).
    name: Text
    measure: Literal["relative", "unequal"] | None = None
    #: The largest error of a slice that noise does not excuse; 0 if noise excuses all.
    error: _Error = 0.0
    #: The same of the output as a whole, where it has enough elements to have a scale.
    overall: _Error = 0.0
    #: The largest one that it does excuse, and the limit up to which it does.
    excused: _Error = 0.0
    excused_to: _Error = 0.0
    max_abs: _Error | None = None
    #: Of the whole output, over all samples, without its mean.
    cosine: float | None = None
    #: The largest error that moving the inputs makes.
    noise: _Error | None = None
    worst: Worst | None = None
    #: Elements that are NaN in the reference and numbers in the variant.
    undefined: Count = 0
    #: Of rows whose number depends on the data: how many there were, and in the reference.
    rows: tuple[Count, Count] | None = None
    not_compared: Text | None = None
    #: The same where nothing but what rounding in float32 does is excused: what a tolerance of the user's is
    #: held against. None: the variant computes in float32.
    strict: Measured | None = None


@dataclass(slots=True)
class Noise:
    """What moving its inputs changed in an output of the reference, at one precision."""

    #: Axis (-1: the whole) to the mean square of each slice.
    squares: dict[int, Array] = field(default_factory=dict)
    #: Share of elements that changed, of rows that came or went.
    unequal: float = 0.0
    rows: float = 0.0


@dataclass(slots=True)
class _Sums:
    """Of one axis: for each slice, over all samples."""

    count: Array
    total: Array
    square: Array
    apart: Array
    peak: Array

    @classmethod
    def of(cls, slices: int) -> _Sums:
        return cls(*(np.zeros(slices) for _ in range(5)))


class Comparison:
    """One output, over any number of samples.

    Args:
        name: of the output, for what is reported.
        varies: sizes of it depend on the data.
        probability: its elements are probabilities, by the model's graph.
    """

    def __init__(self, name: str, *, varies: bool = False, probability: bool = False) -> None:
        self._name = name
        self._probability = probability
        self._varies = varies
        self._sums: dict[int, _Sums] = {}
        self._dropped: set[int] = set()
        #: (axis, slice) to (sample, index, found, expected): made into a `Worst` for the one that is
        #: reported.
        self._peaks: dict[tuple[int, int], tuple[int, tuple[int, ...], object, object]] = {}
        self._samples = 0
        self._max_abs = 0.0
        self._undefined = 0
        self._elements = self._unequal = self._uncommon = 0.0
        self._comparable = 0
        self._cross = self._ours_square = self._ours_total = 0.0
        self._missing: list[float] = []
        self._rows: tuple[int, int] | None = None
        self._fault: Worst | None = None
        #: A number where there is an infinity, or the other way round.
        self._lost: Worst | None = None
        self._discrete: bool | None = None
        #: All samples are of probabilities.
        self._simplex = True

    @property
    def samples(self) -> int:
        """How many were compared."""
        return self._samples

    def add(self, ours: Array, theirs: Array) -> None:
        """Compare one sample: the variant's array with the reference's."""
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        sample, self._samples = self._samples, self._samples + 1
        if is_text(ours) != is_text(theirs) or ours.ndim != theirs.ndim:
            self._blame(sample, (), _described(ours), _described(theirs))
            return
        discrete = theirs.dtype.kind in "biuOUS"
        if self._discrete is None:
            self._discrete = discrete
        if ours.shape != theirs.shape:
            if not self._varies:
                self._blame(sample, (), _described(ours), _described(theirs))
                return
            if self._rows is None or abs(ours.size - theirs.size) > abs(self._rows[0] - self._rows[1]):
                axis = next(i for i in range(ours.ndim) if ours.shape[i] != theirs.shape[i])
                self._rows = ours.shape[axis], theirs.shape[axis]
            ours, theirs, missing = aligned(ours, theirs)
            self._missing.append(missing)
        if not theirs.size:
            return
        if discrete:
            self._add_discrete(sample, ours, theirs)
        else:
            self._add_floats(sample, ours, theirs)

    def _blame(self, sample: int, index: tuple[int, ...], found: str, expected: str) -> None:
        if self._fault is None:
            self._fault = Worst(sample=sample, index=index, found=found, expected=expected)

    # Integers, booleans, strings ----------------------------------------------------------------------------

    def _add_discrete(self, sample: int, ours: Array, theirs: Array) -> None:
        if is_text(theirs):
            differs = np.asarray(ours.astype(str) != theirs.astype(str))
        elif theirs.dtype.itemsize == 1 and theirs.dtype.kind in "iu":
            # Values of QuantizeLinear: runtimes round halves, and what stands just beside them, differently.
            differs = np.abs(ours.astype(np.int16) - theirs.astype(np.int16)) > 1
        else:
            differs = np.asarray(ours != theirs)
        self._elements += theirs.size
        self._comparable += theirs.size
        unequal = int(differs.sum())
        if unequal and (-1, 0) not in self._peaks:
            index = tuple(int(i) for i in np.argwhere(differs)[0])
            self._peaks[-1, 0] = sample, index, ours[index], theirs[index]
        self._unequal += unequal
        self._uncommon += min(_uncommon(theirs), _uncommon(ours)) if theirs.size > 1 else theirs.size
        self._uncommon = max(self._uncommon, self._unequal)

    # Floating point -----------------------------------------------------------------------------------------

    def _add_floats(self, sample: int, ours: Array, theirs: Array) -> None:
        sizes = {axis: size for axis, size in enumerate(theirs.shape) if 1 < size <= _MOST_SLICES}
        for axis in [axis for axis in self._sums if axis >= 0]:
            if self._sums[axis].count.size != sizes.get(axis):
                del self._sums[axis]
                self._dropped.add(axis)
        for axis, size in {-1: 1, **sizes}.items():
            if axis not in self._sums and axis not in self._dropped:
                self._sums[axis] = _Sums.of(size)
        self._simplex = self._simplex and _adds_up(theirs)
        for first, block in _blocks(theirs.shape):
            self._add_block(sample, np.asarray(ours[block]), np.asarray(theirs[block]), first)

    def _add_block(self, sample: int, ours: Array, theirs: Array, first: tuple[int, ...]) -> None:
        with np.errstate(all="ignore"):
            mine, wanted = ours.astype(np.float64), theirs.astype(np.float64)
            finite = np.abs(wanted) < _HUGE
            numbers = finite & (np.abs(mine) < _HUGE)
            lost = finite & ~numbers
            infinite = ~finite & ~np.isnan(wanted)
            lost |= infinite & ~((np.sign(mine) == np.sign(wanted)) & (np.abs(mine) >= _HUGE_IN_HALF))
            undefined = np.isnan(wanted) & ~np.isnan(mine)
            self._undefined += int(undefined.sum())
            self._comparable += int(finite.sum())
            self._elements += wanted.size
            if lost.any() and self._lost is None:
                at = tuple(int(i) for i in np.argwhere(lost)[0])
                place = tuple(i + start for i, start in zip(at, first, strict=True))
                self._lost = Worst(
                    sample=sample, index=place, found=_shown(ours[at]), expected=_shown(theirs[at])
                )
            apart = np.where(numbers, mine - wanted, 0.0)
            values = np.where(numbers, wanted, 0.0)
            mine = np.where(numbers, mine, 0.0)
        self._max_abs = max(self._max_abs, float(np.abs(apart).max(initial=0.0)))
        self._cross += float((mine * values).sum())
        self._ours_square += float((mine * mine).sum())
        self._ours_total += float(mine.sum())
        squares, weights = apart * apart, numbers.astype(np.float64)
        for axis, sums in self._sums.items():
            others = tuple(i for i in range(wanted.ndim) if i != axis)
            start = first[axis] if axis >= 0 else 0
            part = slice(start, start + (wanted.shape[axis] if axis >= 0 else 1))
            sums.count[part] += weights.sum(axis=others)
            sums.total[part] += values.sum(axis=others)
            sums.square[part] += (values * values).sum(axis=others)
            sums.apart[part] += squares.sum(axis=others)
            self._note_peaks(sample, axis, sums, part, squares, ours, theirs, first)

    def _note_peaks(
        self,
        sample: int,
        axis: int,
        sums: _Sums,
        part: slice,
        squares: Array,
        ours: Array,
        theirs: Array,
        first: tuple[int, ...],
    ) -> None:
        """Remember the element that is furthest off in the slices that are furthest off."""
        ordered = (
            squares.reshape(1, -1)
            if axis < 0
            else np.moveaxis(squares, axis, 0).reshape(squares.shape[axis], -1)
        )
        peaks = ordered.max(axis=1)
        better = np.flatnonzero(peaks > sums.peak[part])
        sums.peak[part] = np.maximum(sums.peak[part], peaks)
        if better.size > _MOST_PEAKS:
            # Those that are furthest off on their own scale; the slice that is reported is among them.
            scales = sums.square[part][better] / np.maximum(sums.count[part][better], 1) + 1e-60
            better = better[np.argsort(peaks[better] / scales)[-_MOST_PEAKS:]]
        rest = [size for i, size in enumerate(squares.shape) if i != axis]
        for row in better:
            inner = (
                [int(i) for i in np.unravel_index(int(ordered[row].argmax()), rest or (1,))] if rest else []
            )
            at = tuple(inner if axis < 0 else [*inner[:axis], int(row), *inner[axis:]])
            place = tuple(i + start for i, start in zip(at, first, strict=True))
            self._peaks[axis, int(row) + part.start] = sample, place, ours[at], theirs[at]

    def _worst(self, axis: int, index: int) -> Worst | None:
        if (axis, index) not in self._peaks:
            return None
        sample, place, found, expected = self._peaks[axis, index]
        return Worst(
            sample=sample,
            index=place,
            found=_shown(found),
            expected=_shown(expected),
            slice=None if axis < 0 else f"index {index} of axis {axis}",
        )

    # What came of it ----------------------------------------------------------------------------------------

    def noise(self) -> Noise:
        """As the noise of the reference, where what was compared is the reference on moved inputs."""
        found = Noise(unequal=self._share(), rows=float(np.mean(self._missing)) if self._missing else 0.0)
        for axis, sums in self._sums.items():
            found.squares[axis] = sums.apart / np.maximum(sums.count, 1)
        return found

    def _share(self) -> float:
        return self._unequal / max(self._uncommon, 1.0)

    def measured(self, noise: Noise | None = None, precision: str | None = None) -> Measured:
        """What came out of all samples.

        Args:
            noise: of the reference at the precision of the variant.
            precision: that the variant computes in; ``f16`` has a least step.
        """
        noise = noise or Noise()
        # Where there is no number at all, what an infinity becomes in another precision says nothing.
        fault = self._fault or (self._lost if self._comparable else None)
        if fault is not None:
            measure: Literal["relative", "unequal"] = "unequal" if self._discrete else "relative"
            return Measured(name=self._name, measure=measure, error=INFINITE, worst=fault)
        if not self._comparable and not self._missing:
            why = "it is empty" if not self._elements else "the portable model gives no finite number for it"
            return Measured(name=self._name, not_compared=why)
        best = self._discrete_result(noise) if self._discrete else self._float_result(noise, precision)
        if not self._missing:
            return best
        missing = float(np.mean(self._missing))
        rows_limit = NOISE_MULTIPLE * noise.rows
        shares = (
            {"error": max(best.error, missing)}
            if missing > rows_limit
            else {"excused": max(best.excused, missing), "excused_to": max(best.excused_to, rows_limit)}
        )
        return best.replace(**shares, rows=self._rows)

    def _discrete_result(self, noise: Noise) -> Measured:
        share, limit = self._share(), NOISE_MULTIPLE * noise.unequal
        excused = share <= limit
        return Measured(
            name=self._name,
            measure="unequal",
            error=0.0 if excused else share,
            excused=share if excused else 0.0,
            excused_to=limit,
            noise=noise.unequal,
            worst=self._worst(-1, 0) if share else None,
        )

    def _float_result(self, noise: Noise, precision: str | None) -> Measured:
        error = overall = excused = excused_to = loudest = 0.0
        worst: Worst | None = None
        least = _LEAST.get(precision or "", 0.0)
        for axis, sums in self._sums.items():
            counted = sums.count > 0
            if not counted.any() or (sums.count.max() < _FEW and sums.count.size > _MOST_SMALL_SLICES):
                continue
            count = np.maximum(sums.count, 1)
            scale, floor = _scales(count, sums.total, sums.square, counted)
            if self._simplex or self._probability:
                scale = np.maximum(scale, _PROBABILITY)
                scale = np.where(count < _FEW, np.maximum(scale, _FEW_PROBABILITIES), scale)
            apart = np.sqrt(sums.apart / count)
            moved = noise.squares.get(axis)
            jitter = (
                np.sqrt(moved) if moved is not None and moved.size == scale.size else np.zeros_like(scale)
            )
            jitter = np.maximum(jitter, _typical_noise(jitter, scale) * scale)
            limits = np.maximum(NOISE_MULTIPLE * jitter, np.maximum(floor, least))
            with np.errstate(divide="ignore", invalid="ignore"):
                errors = np.where(apart > 0, np.minimum(apart / scale, INFINITE), 0.0)
                allowed = np.where(scale > 0, np.minimum(limits / scale, INFINITE), INFINITE)
                louder = np.where(scale > np.maximum(floor, least), jitter / scale, 0.0)
            loudest = max(loudest, float(louder.max(initial=0.0)))
            fine = apart <= limits
            if axis < 0 and count[0] >= _FEW and not fine[0]:
                overall = float(errors[0])
            if (~fine).any():
                index = int(np.where(fine, -1.0, errors).argmax())
                if errors[index] > error:
                    error, worst = float(errors[index]), self._worst(axis, index)
            # What is excused though its error is large in relation is told with the limit that excused it.
            quiet = fine & (scale > np.maximum(floor, least))
            if quiet.any():
                index = int(np.where(quiet, errors, -1.0).argmax())
                if errors[index] > excused:
                    excused, excused_to = float(errors[index]), float(allowed[index])
        return Measured(
            name=self._name,
            measure="relative",
            error=error,
            overall=overall,
            excused=excused,
            excused_to=excused_to,
            max_abs=min(self._max_abs, INFINITE),
            cosine=self._cosine(),
            noise=loudest,
            worst=worst,
            undefined=self._undefined,
        )

    def _cosine(self) -> float | None:
        whole = self._sums[-1]
        count = max(float(whole.count[0]), 1.0)
        theirs = float(whole.square[0]) - float(whole.total[0]) ** 2 / count
        ours = self._ours_square - self._ours_total**2 / count
        both = self._cross - float(whole.total[0]) * self._ours_total / count
        if theirs <= 0 or ours <= 0:
            return None
        return float(np.clip(both / np.sqrt(theirs * ours), -1.0, 1.0))


def _scales(count: Array, total: Array, square: Array, counted: Array) -> tuple[Array, Array]:
    """The scale of each slice, and below which a difference is rounding of what cancels."""
    root = np.sqrt(square / count)
    spread = np.sqrt(np.maximum(square / count - (total / count) ** 2, 0.0))
    own = np.where(count >= _FEW, np.maximum(spread, _OFFSET * root), root)
    if counted.sum() >= 32:
        # One of many slices with few elements is small by chance: it is taken with the smaller ones of the
        # others.
        small = np.quantile(root[counted], 0.25)
        own = np.sqrt((count * own**2 + 4 * np.minimum(small, root.max()) ** 2) / (count + 4))
    typical = float(np.median(root[counted]))
    floor = np.where(own <= _CANCELLED * typical, _CANCELLED * typical, 0.0)
    return own, floor


def _adds_up(array: Array) -> bool:
    """Whether an array holds probabilities: none is negative, and along an axis they add up to 1."""
    if array.size > _BLOCK or not array.size or not np.all(array >= 0):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        sums = (array.sum(axis=axis, dtype=np.float64) for axis in {array.ndim - 1, min(1, array.ndim - 1)})
        return array.ndim > 0 and any(bool(np.all(np.abs(each - 1) < 1e-2)) for each in sums)


def _typical_noise(jitter: Array, scale: Array) -> float:
    """Noise over scale of the noisiest slice that is not near zero: where one row jumps, another may."""
    heard = scale > 0.01 * float(np.median(scale))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(heard, jitter / scale, 0.0).max(initial=0.0))


def _uncommon(array: Array) -> int:
    """How many elements are not the most common value."""
    values = array.astype(str) if is_text(array) else array
    _, counts = np.unique(values, return_counts=True)
    return int(array.size - counts.max()) if array.size else 0


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Parts of an array of at most `_BLOCK` elements: (index of the first element, slices)."""
    if int(np.prod(shape)) <= _BLOCK:
        yield (0,) * len(shape), (slice(None),) * len(shape)
        return
    axis = int(np.argmax(shape))
    step = max(1, _BLOCK * shape[axis] // int(np.prod(shape)))
    for start in range(0, shape[axis], step):
        first = tuple(start if i == axis else 0 for i in range(len(shape)))
        yield (
            first,
            tuple(slice(start, start + step) if i == axis else slice(None) for i in range(len(shape))),
        )


def _described(array: Array) -> str:
    return f"{'string' if is_text(array) else array.dtype} of shape {list(array.shape)}"


def _shown(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
