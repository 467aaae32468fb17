"""Pictures of block masks: for the terminal, and as PNG."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from aotpack.flex.emit import Array
from aotpack.flex.mask import Block, BlockMask

__all__ = ["caption", "to_png", "to_text"]

#: Red, green and blue of a masked, a partial and a full block: of different lightness, for eyes without hue.
_COLOURS = np.array([[0xF1, 0xF1, 0xEE], [0xF2, 0xA5, 0x41], [0x1F, 0x4E, 0x79]], np.uint8)
_LINE = np.array([0xFF, 0xFF, 0xFF], np.uint8)
#: Of a masked, a partial and a full block.
_SIGNS = "·▒█"


def caption(mask: BlockMask) -> str:
    """One line that says how large a mask is and how much of it is skipped."""
    length, keys = mask.lengths
    rows, columns = mask.block
    partial = float(np.mean(mask.states == Block.PARTIAL))
    text = f"{length} queries x {keys} keys in blocks of {rows} x {columns}: "
    text += f"{mask.skipped:.1%} skipped, {partial:.1%} partial"
    return text + ", data decides more" if mask.depends_on_data else text


def to_text(mask: BlockMask, width: int = 64) -> str:
    """A mask in characters, queries downwards and keys to the right, with its caption below.

    Args:
        mask: to be drawn.
        width: of the picture in characters at most; beyond it neighbouring blocks share one.

    """
    # Characters are about twice as high as wide, and a block is not drawn higher than one.
    step = max(-(-mask.states.shape[1] // width), mask.block[0] // (2 * mask.block[1]), 1)
    rows = max(1, round(step * 2 * mask.block[1] / mask.block[0]))
    small = _shrunk(mask.states, rows, step)
    return "\n".join("".join(_SIGNS[state] for state in line) for line in small) + "\n" + caption(mask)


def to_png(mask: BlockMask, size: int = 512) -> bytes:
    """A mask as a PNG file, queries downwards and keys to the right.

    Args:
        mask: to be drawn.
        size: of the longer side in pixels, about; blocks are not drawn smaller than one pixel.

    """
    rows, columns = mask.states.shape
    height, width = rows * mask.block[0], columns * mask.block[1]
    scale = size / max(height, width)
    high, wide = max(1, round(mask.block[0] * scale)), max(1, round(mask.block[1] * scale))
    pixels = _COLOURS[mask.states].repeat(high, axis=0).repeat(wide, axis=1)
    if min(high, wide) >= 8:
        pixels[::high] = _LINE
        pixels[:, ::wide] = _LINE
    return _png(pixels)


def _shrunk(states: Array, rows: int, columns: int) -> Array:
    """Blocks in groups: a group is full or masked if all of it is."""
    return np.array(
        [
            [
                _together(states[row : row + rows, column : column + columns])
                for column in range(0, states.shape[1], columns)
            ]
            for row in range(0, states.shape[0], rows)
        ]
    )


def _together(group: Array) -> int:
    first = int(group.flat[0])
    return first if (group == first).all() else int(Block.PARTIAL)


def _png(pixels: Array) -> bytes:
    """An RGB image of shape (height, width, 3) as PNG (ISO/IEC 15948): header, one compressed block, end."""
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    # Each line begins with its filter, 0 for none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
