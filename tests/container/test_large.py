"""Models above 2 GB: memory does not grow with them."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Writes a model of so many bytes, packs it, checks it and puts it together; prints its peak memory in bytes.
SCRIPT = """
import random, sys
from pathlib import Path
from aotpack.runtime import edit
from aotpack.container import writer
from aotpack.container.reader import PackageReader
from aotpack.cache.variants import Cache
from tests.container.packages import manifest_of

folder, size = Path(sys.argv[1]), int(sys.argv[2])
noise = random.Random(0)
model, weights = folder / "model.onnx", folder / "model.onnx.data"
model.write_bytes(b"an ONNX model")
with weights.open("wb") as file:
    for _ in range(size >> 20):
        file.write(noise.randbytes(1 << 20))
package = folder / "large.aotpack"
files = [(file.name, file) for file in (model, weights)]
writer.write(package, manifest_of({"main": {"a": {}}}), {("main", "a"): files})
with PackageReader.open(package) as reader:
    edit.merge([reader], folder / "merged.aotpack")
    (folder / "merged.aotpack").unlink()
    reader.verify()
    component = reader.manifest.components[0]
    files = Cache(folder / "cache", limit=1 << 40).materialise(reader, component, component.variants[0])
    assert (files / weights.name).stat().st_size == size
    with (files / weights.name).open("rb") as one, weights.open("rb") as other:
        while block := one.read(1 << 20):
            assert block == other.read(1 << 20)
# Not ru_maxrss, which a process inherits from the one that started it.
status = Path("/proc/self/status").read_text()
print(int(status.split("VmHWM:")[1].split()[0]) * 1024)
"""


def peak(folder: Path, size: int) -> int:
    """Bytes of memory that it takes to pack, check and materialise a model of `size` bytes."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(size)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)),
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    assert peak(tmp_path, 256 << 20) < 192 << 20


@pytest.mark.long
def test_three_gigabytes(tmp_path: Path) -> None:
    assert peak(tmp_path, 3 << 30) < 512 << 20
