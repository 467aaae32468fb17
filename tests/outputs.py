"""How far outputs are apart, for tests that load and run variants themselves on one sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aotpack.builder.numerics.values import Array

__all__ = ["errors"]

#: The least scale: the models of the tests give probabilities, and states of about 1.
_LEAST_SCALE = 2.0**-6


def errors(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """The largest error of an output: the root mean square of the difference over the standard deviation.

    Not the measure of the builder, whose slices of one sample are single numbers that only the model's own
    noise can judge.
    """
    found = 0.0
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.shape == wanted.shape
        assert np.isfinite(mine).all()
        values = np.asarray(wanted, np.float64)
        scale = np.std(values) if values.size > 1 else np.abs(values).max(initial=0.0)
        apart = np.sqrt(np.mean((mine - values) ** 2))
        found = max(found, float(apart / max(float(scale), _LEAST_SCALE)))
    return found
