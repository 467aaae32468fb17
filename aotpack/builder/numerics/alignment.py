"""Rows of two outputs that belong together, where one has more of them: detections after suppression, say."""

from __future__ import annotations

import numpy as np

from aotpack.builder.numerics.values import Array

__all__ = ["aligned"]

#: Rows that are matched one by one.
_MOST_ROWS = 4096


def aligned(ours: Array, theirs: Array) -> tuple[Array, Array, float]:
    """Rows of two arrays of which one has more, those that belong together, and the share without a partner.

    Rows stand along the first axis that differs. Equal rows of integers and strings belong together; of
    floating point those that are each other's nearest.
    """
    axis = next(i for i in range(ours.ndim) if ours.shape[i] != theirs.shape[i])
    if any(ours.shape[i] != theirs.shape[i] for i in range(axis + 1, ours.ndim)):
        least = tuple(slice(0, min(sizes)) for sizes in zip(ours.shape, theirs.shape, strict=True))
        return ours[least], theirs[least], 1 - theirs[least].size / max(ours.size, theirs.size, 1)
    ours, theirs = np.moveaxis(ours, axis, 0), np.moveaxis(theirs, axis, 0)
    mine, wanted = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    pairs = _pairs(mine, wanted)
    missing = 1 - 2 * len(pairs) / max(len(mine) + len(wanted), 1)
    first = np.array([pair[0] for pair in pairs], dtype=int)
    second = np.array([pair[1] for pair in pairs], dtype=int)
    return np.moveaxis(ours[first], 0, axis), np.moveaxis(theirs[second], 0, axis), missing


def _pairs(mine: Array, wanted: Array) -> list[tuple[int, int]]:
    if wanted.dtype.kind in "biuOUS":
        left: dict[tuple[object, ...], list[int]] = {}
        for index, row in enumerate(mine.tolist()):
            left.setdefault(tuple(row), []).append(index)
        return [
            (left[key].pop(0), index)
            for index, row in enumerate(wanted.tolist())
            if left.get(key := tuple(row))
        ]
    if max(len(mine), len(wanted)) > _MOST_ROWS or not len(mine) or not len(wanted):
        return [(index, index) for index in range(min(len(mine), len(wanted)))]
    scale = np.maximum(np.abs(wanted).astype(np.float64).mean(axis=0), 1e-30)
    near = np.zeros((len(mine), len(wanted)))
    for ours, theirs in zip((mine / scale).T, (wanted / scale).T, strict=True):
        near += np.abs(np.nan_to_num(ours[:, None] - theirs[None, :], nan=1e6, posinf=1e6, neginf=1e6))
    nearest_of_mine, nearest_of_wanted = near.argmin(axis=1), near.argmin(axis=0)
    return [(int(i), j) for j, i in enumerate(nearest_of_wanted) if nearest_of_mine[i] == j]
