"""Numbers of a variant beside those of the portable model, on the same seeded inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aotpack.errors import ModelError
from aotpack.manifest import TensorInfo

__all__ = ["TOLERANCES", "Array", "difference", "seeded_inputs"]

#: An array of any element type.
Array = npt.NDArray[Any]

#: By the precision an EP computes in, on the scale of `difference`. f16 keeps 11 bits and bf16 8: a chain
#: of tens of layers loses about three more (measured on the models of FACTS.md, 5: 3e-4 to 6e-2).
TOLERANCES: Mapping[str | None, float] = {None: 1e-3, "f32": 1e-3, "f16": 3e-2, "bf16": 1e-1}


def seeded_inputs(
    inputs: Sequence[TensorInfo], *, seed: int = 0, highest_integer: int = 256
) -> dict[str, Array]:
    """The same inputs for the same arguments, on every machine.

    Floating point inputs are drawn from a standard normal distribution, integers from
    [0, `highest_integer`), since most integer inputs are indices or bytes.

    Args:
        inputs: their names, dtypes and shapes; sizes that are not fixed become 1.
        seed: of numpy's PCG64.
        highest_integer: exclusive.

    Raises:
        ModelError: an input is of a type that numpy has no numbers for.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    made: dict[str, Array] = {}
    for info in inputs:
        shape = tuple(size if isinstance(size, int) else 1 for size in info.shape or ())
        try:
            dtype = np.dtype(info.dtype)
        except TypeError:
            raise ModelError(
                f"inputs of type {info.dtype} cannot be made up", where=f"input {info.name!r}"
            ) from None
        if dtype.kind == "f":
            made[info.name] = random.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            made[info.name] = random.integers(0, 2, shape).astype(dtype)
        elif dtype.kind in "iu":
            top = min(highest_integer, np.iinfo(dtype).max)
            made[info.name] = random.integers(0, top, shape).astype(dtype)
        else:
            raise ModelError(f"inputs of type {info.dtype} cannot be made up", where=f"input {info.name!r}")
    return made


def difference(variant: Sequence[Array], portable: Sequence[Array]) -> tuple[float, float]:
    """How far outputs are apart: (largest absolute difference, largest error).

    The error of an output is max |variant - portable| / max(1, max |portable|). NaN and infinity are
    equal where both have the same one, and else an infinite difference; so is another shape or count.
    """
    if len(variant) != len(portable):
        return float("inf"), float("inf")
    max_abs = error = 0.0
    for ours, theirs in zip(variant, portable, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        if ours.shape != theirs.shape:
            return float("inf"), float("inf")
        if not ours.size:
            continue
        if ours.dtype.kind not in "fiub":
            if not np.array_equal(ours, theirs):
                return float("inf"), float("inf")
            continue
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.abs(ours - theirs))
        apart = np.where(np.isnan(apart), np.inf, apart)
        finite = np.abs(theirs[np.isfinite(theirs)])
        scale = max(1.0, float(finite.max(initial=0.0)))
        max_abs = max(max_abs, float(apart.max()))
        error = max(error, float(apart.max()) / scale)
    return max_abs, error
