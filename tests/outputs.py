"""How far outputs are apart, for tests that load and run variants themselves."""

from __future__ import annotations

from collections.abc import Sequence

from aotpack.builder.numerics.measure import Comparison
from aotpack.builder.numerics.values import Array

__all__ = ["errors"]


def errors(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """The largest error of an output, with no noise to excuse any of it."""
    found = 0.0
    for index, (mine, wanted) in enumerate(zip(ours, theirs, strict=True)):
        comparison = Comparison(str(index))
        comparison.add(mine, wanted)
        found = max(found, comparison.measured().error)
    return found
