"""The mods that models are made of, by name.

Positions count from 0 in queries and in keys, so for L = S query i and key i are the same token. For queries
that continue a longer sequence, `offset` is the position of the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aotpack.errors import FlexError
from aotpack.flex.emit import Array
from aotpack.flex.mod import Mask, Mod, mask, mod
from aotpack.flex.trace import Capture, Table, Tensor, maximum, minimum, where

__all__ = [
    "alibi",
    "causal",
    "dilated_window",
    "document",
    "first_keys",
    "natten1d",
    "natten2d",
    "prefix_lm",
    "quantize",
    "relative_bias",
    "sink_logits",
    "sliding_window",
    "softcap",
]


def causal(offset: int = 0) -> Mask:
    """A query sees keys up to its own position."""
    return mask(lambda b, h, q, k: q + offset >= k if offset else q >= k, "causal")


def sliding_window(size: int, offset: int = 0) -> Mask:
    """A query sees the last `size` keys, its own position among them (Mistral, Gemma)."""
    _positive("sliding_window", "size", size)
    return mask(lambda b, h, q, k: (q + offset >= k) & (q + offset - k < size), "sliding_window")


def dilated_window(size: int, dilation: int) -> Mask:
    """A query sees the last `size` keys whose distance is a multiple of `dilation` (Longformer)."""
    _positive("dilated_window", "size", size)
    _positive("dilated_window", "dilation", dilation)

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        distance = q - k
        return (distance >= 0) & (distance < size * dilation) & (abs(distance) % dilation == 0)

    return mask(sees, "dilated_window")


def prefix_lm(length: int) -> Mask:
    """Every query sees the first `length` keys, and those up to its own position (T5, PaliGemma)."""
    return mask(lambda b, h, q, k: (k < length) | (q >= k), "prefix_lm")


def first_keys(count: int) -> Mask:
    """Every query sees the first `count` keys; with ``sliding_window(512) |`` before it, global tokens."""
    return mask(lambda b, h, q, k: k < count, "first_keys")


def document(ids: Capture | Array | Sequence[int]) -> Mask:
    """A query sees the keys of its own document, in a batch of packed ones.

    Args:
        ids: the document of each position, of shape (S,) or (B, S), with L = S. A `Capture` waits for a run.

    """
    table = ids if isinstance(ids, Capture) else Table(np.asarray(ids, np.int64))
    rank = len(table.shape) if isinstance(table, Capture) else table.value.ndim
    if rank not in (1, 2):
        raise FlexError(
            "ids have the wrong rank", where="mod 'document'", found=rank, expected="(S,) or (B, S)"
        )
    if rank == 1:
        return mask(lambda b, h, q, k: table[q] == table[k], "document")
    return mask(lambda b, h, q, k: table[b, q] == table[b, k], "document")


def alibi(heads: int) -> Mod:
    """Subtracts the distance times a slope a head (Press et al. 2022: 2^(-8(h+1)/n) for n a power of two)."""
    _positive("alibi", "heads", heads)
    nearest = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * (head + 1) / nearest) for head in range(nearest)]
    slopes += [2.0 ** (-4 * (2 * head + 1) / nearest) for head in range(heads - nearest)]
    table = Table(np.array(slopes, np.float32))

    def farther(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return score - table[h].like(score) * abs(q - k).like(score)

    return mod(farther, "alibi", heads=heads)


def softcap(cap: float) -> Mod:
    """Cap * tanh(score / cap) (Gemma 2)."""
    if not 0 < cap < math.inf:
        raise FlexError("cap is not a positive number", where="mod 'softcap'", found=cap)
    return mod(lambda score, b, h, q, k: (score * (1.0 / cap)).tanh() * float(cap), "softcap")


def relative_bias(table: Capture | Array, *, max_distance: int = 128, bidirectional: bool = True) -> Mod:
    """Adds a learned bias a head and bucket of distance (T5).

    Args:
        table: of shape (buckets, heads).
        max_distance: beyond it all distances share the last bucket.
        bidirectional: half of the buckets are for keys after the query; otherwise those count as distance 0.

    """
    shape = table.shape
    if len(shape) != 2 or not isinstance(shape[0], int):
        raise FlexError(
            "table has the wrong shape", where="mod 'relative_bias'", found=shape, expected="(buckets, heads)"
        )
    buckets = shape[0] // 2 if bidirectional else shape[0]
    exact = buckets // 2
    if exact < 1 or max_distance <= exact:
        raise FlexError("too few buckets", where="mod 'relative_bias'", found=shape[0], expected="4 or more")
    values = table if isinstance(table, Capture) else Table(table)
    # The bucket of each distance is a table too: logarithms would be rounded differently on each target.
    distances = np.arange(max_distance + 1)
    log = np.log(np.maximum(distances, 1) / exact) / math.log(max_distance / exact) * (buckets - exact)
    lookup = Table(
        np.where(distances < exact, distances, np.minimum(exact + log.astype(np.int64), buckets - 1))
    )

    def biased(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        ahead = k - q
        distance = minimum(abs(ahead) if bidirectional else maximum(-ahead, 0), max_distance)
        bucket = lookup[distance]
        if bidirectional:
            bucket = bucket + where(ahead > 0, bucket * 0 + buckets, 0)
        return score + values[bucket, h].like(score)

    return mod(biased, "relative_bias", heads=shape[1] if isinstance(shape[1], int) else None)


def natten1d(kernel: int, length: int) -> Mask:
    """A query sees the `kernel` nearest keys, at the borders those inwards (NATTEN, Hassani et al. 2023)."""
    return mask(lambda b, h, q, k: _near(q, k, kernel, length, "natten1d"), "natten1d")


def natten2d(kernel: int, height: int, width: int) -> Mask:
    """Neighbourhood attention over an image whose `height` x `width` tokens are laid out row by row."""

    def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        rows = _near(q // width, k // width, kernel, height, "natten2d")
        return rows & _near(q % width, k % width, kernel, width, "natten2d")

    return mask(sees, "natten2d")


def sink_logits(logits: Capture | Array) -> Mod:
    """The last key is a sink: its score is a learned logit a head (gpt-oss).

    K and V need one more column for it, with zeros in V. Masks must see it: ``causal() | last``.

    Args:
        logits: of shape (heads,).

    """
    table = logits if isinstance(logits, Capture) else Table(np.asarray(logits))

    def sunk(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return where(k == _last(k), table[h].like(score), score)

    heads = table.shape[0] if isinstance(table, Capture) else len(table.value)
    return mod(sunk, "sink_logits", heads=heads if isinstance(heads, int) else None)


def quantize(levels: int = 255) -> Mod:
    """Probabilities rounded to `levels` steps from 0 to 1, as a `prob_mod`."""
    _positive("quantize", "levels", levels)
    return mod(lambda p, b, h, q, k: (p * float(levels)).round() * (1.0 / levels), "quantize")


def _near(q: Tensor, k: Tensor, kernel: int, length: int, name: str) -> Tensor:
    if not 0 < kernel <= length:
        raise FlexError("kernel does not fit", where=f"mod {name!r}", found=kernel, expected=f"1 to {length}")
    centre = minimum(maximum(q, kernel // 2), length - 1 - (kernel - 1) // 2)
    ahead = k - centre
    return (ahead >= -(kernel // 2)) & (ahead <= (kernel - 1) // 2)


def _last(k: Tensor) -> Tensor:
    emitter = k.trace.emitter
    return Tensor(k.trace, emitter.op("ReduceMax", k.name, keepdims=1), k.element_type)


def _positive(name: str, what: str, value: int) -> None:
    if value < 1:
        raise FlexError(f"{what} is not positive", where=f"mod {name!r}", found=value)
