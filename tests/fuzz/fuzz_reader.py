"""Fuzz the reader: `python -m tests.fuzz.fuzz_reader`; the arguments are those of libFuzzer."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["aotpack"]):
    from tests.fuzz.reading import read_either_way

from aotpack.container.format import PREAMBLE_SIZE
from tests.attacks.forge import ONNX, TEXT, Forgery, honest, sha256, zstd
from tests.attacks.lies import LIES

#: A seed is mutated byte by byte.
_LARGEST_SEED = 4096


def small() -> Forgery:
    """An honest package without its large file."""
    forged = honest()
    raw, packed = forged.segments[2], forged.segments[1]
    forged.manifest["segments"] = [raw, packed]
    forged.files[0]["segments"] = [0]
    forged.files[1] |= {"segments": [1], "size": len(TEXT), "sha256": sha256(TEXT)}
    return forged


def seed(forged: Forgery) -> bytes:
    """What `read_either_way` takes for the package: its segments stand right behind the manifest."""
    body = ONNX + zstd(TEXT)
    text = forged.text or b""
    if not text:
        for _ in range(3):  # the offsets depend on the length of the text, which they are in
            text = json.dumps(forged.manifest, separators=(",", ":")).encode()
            start = PREAMBLE_SIZE + len(text) + 2
            for segment, offset in zip(forged.segments, (start, start + len(ONNX)), strict=False):
                segment["offset"] = offset
    return b"\1" + text + b"\0\0" + body


def write_seeds(folder: Path) -> None:
    """The honest package, and those lies that can be told of so small a one."""
    (folder / "honest").write_bytes(seed(small()))
    for lie in LIES:
        forged = small()
        try:
            lie.tell(forged)
        except IndexError:
            continue
        if len(data := seed(forged)) <= _LARGEST_SEED:
            (folder / lie.name).write_bytes(data)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as found:
        assert read_either_way(seed(small()))
        write_seeds(Path(folder))
        # libFuzzer writes what it finds to the first folder and only reads the others.
        own = [] if any(Path(argument).is_dir() for argument in sys.argv[1:]) else [found]
        atheris.Setup([*sys.argv, *own, folder], read_either_way)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
