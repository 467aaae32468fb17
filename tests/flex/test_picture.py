"""What a mask looks like."""

import struct
import zlib

import numpy as np
import pytest

from aotpack import flex


def mask_of(mod: flex.Mod, length: int, block: tuple[int, int]) -> flex.BlockMask:
    (node,) = flex.read(flex.attention((1, 1, length, 8), score_mod=mod))
    mask = flex.understand(node, 24, block, block[1]).mask
    assert mask is not None
    return mask


def test_text() -> None:
    text = flex.to_text(mask_of(flex.causal(), 64, (16, 8)))
    assert text.splitlines() == [
        "▒▒······",
        "██▒▒····",
        "████▒▒··",
        "██████▒▒",
        "64 queries x 64 keys in blocks of 16 x 8: 37.5% skipped, 25.0% partial",
    ]


def test_text_is_no_wider_than_asked() -> None:
    lines = flex.to_text(mask_of(flex.sliding_window(16), 1024, (8, 8)), width=32).splitlines()[:-1]
    assert {len(line) for line in lines} == {32}
    assert len(lines) == 16


def test_data_is_told() -> None:
    ids = flex.Capture(name="ids", dtype="int64", shape=(64,))
    assert flex.caption(mask_of(flex.document(ids) & flex.causal(), 64, (16, 16))).endswith(
        "data decides more"
    )


@pytest.mark.parametrize("size", [16, 512])
def test_png(size: int) -> None:
    mask = mask_of(flex.sliding_window(100), 256, (32, 16))
    data = flex.to_png(mask, size)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colour) == (8, 2) and max(width, height) == size
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * 3)
    assert not lines[:, 0].any()
    pixels = lines[:, 1:].reshape(height, width, 3)
    rows, columns = mask.states.shape
    # The middle of each block has the colour of its state, and no two states share one.
    middles = pixels[height // rows // 2 :: height // rows, width // columns // 2 :: width // columns]
    colours = {state: {tuple(pixel) for pixel in middles[mask.states == state]} for state in range(3)}
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == 3
