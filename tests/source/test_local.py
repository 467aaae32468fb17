"""What was compiled or measured on this machine lies in the cache like all else, and counts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aotpack.container.reader import PackageReader
from aotpack.machine import Machine
from aotpack.manifest import Variant
from aotpack.policy import Policy
from aotpack.probing import probe
from aotpack.source.cache import Cache
from aotpack.source.local import LocalVariants
from aotpack.tuning import Measurement, Tuning, TuningStore
from tests.container.packages import package

DIGEST = "5" * 64
FILES = {"main": {"here": {"m.onnx": b"onnx", "m.bin": bytes(range(256)) * 1000}}}
SIZE = 256_004


@pytest.fixture(scope="module")
def machine() -> Machine:
    return probe()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def keep(cache: Cache, machine: Machine, folder: Path) -> tuple[Variant, Path]:
    with PackageReader.open(package(folder, FILES, name="vad")) as built:
        (component,) = built.manifest.components
        return LocalVariants(cache).keep(DIGEST, "encoder", machine, Policy(), built, component)


def measure(cache: Cache, machine: Machine) -> Path:
    measured = (Measurement(variant="a", target="ort-cpu", run_seconds=0.001),)
    return TuningStore(cache.root).write(
        Tuning(package="p", digest=DIGEST, component="main", machine=machine.key(), measurements=measured)
    )


def test_what_was_compiled_here_is_found_again(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    local = LocalVariants(cache)
    assert local.find(DIGEST, "encoder", machine, Policy()) is None
    variant, folder = keep(cache, machine, tmp_path)
    assert local.find(DIGEST, "encoder", machine, Policy()) == (variant, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES["main"]["here"]
    assert local.find(DIGEST, "decoder", machine, Policy()) is None
    assert local.find("6" * 64, "encoder", machine, Policy()) is None
    other = machine.model_copy(update={"toolchains": {}, "onnxruntime": "0.1"})
    assert local.find(DIGEST, "encoder", other, Policy()) is None
    for narrower in (Policy(devices=["npu"]), Policy(eps=frozenset({"QNNExecutionProvider"}))):
        assert local.find(DIGEST, "encoder", machine, narrower) is None
    # What has no say in what is compiled makes no other key.
    assert local.find(DIGEST, "encoder", machine, Policy(memory_limit=1, measured=True)) is not None


def test_it_is_listed_counted_and_removed_like_others(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    keep(cache, machine, tmp_path)
    (entry,) = cache.entries()
    assert (entry.package, entry.component, entry.variant, entry.size) == ("vad", "encoder", "here", SIZE)
    assert SIZE < cache.size() < SIZE + 5000
    assert cache.prune(1000) == [entry]
    assert LocalVariants(cache).find(DIGEST, "encoder", machine, Policy()) is None
    assert cache.size() == 0
    assert list((cache.root / "compiled").iterdir()) == []


def test_one_that_is_damaged_is_not_found(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    _, folder = keep(cache, machine, tmp_path)
    damaged = folder / "m.bin"
    os.utime(damaged, ns=(1, 1))
    assert LocalVariants(cache).find(DIGEST, "encoder", machine, Policy()) is not None
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert LocalVariants(cache).find(DIGEST, "encoder", machine, Policy()) is None
    assert [entry.variant for entry in cache.verify()] == ["here"]
    assert cache.size() == 0


def test_measurements_count_and_go_last(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    measure(cache, machine)
    keep(cache, machine, tmp_path)
    store = TuningStore(cache.root)
    assert cache.size() > SIZE
    assert len(cache.prune(SIZE // 2)) == 1
    assert store.read(DIGEST, "main", machine)["a"].run_seconds == 0.001
    cache.prune(0)
    assert store.read(DIGEST, "main", machine) == {}
    assert cache.size() == 0


def test_notes_that_are_no_notes_are_removed(cache: Cache, machine: Machine) -> None:
    whole = measure(cache, machine)
    torn = whole.with_name(f"{DIGEST}-torn.json")
    torn.write_bytes(whole.read_bytes()[:50])
    left, new = whole.with_name("tmpabcdefg1"), whole.with_name("tmpabcdefg2")
    left.touch()
    new.touch()
    os.utime(left, (time.time() - 7200,) * 2)
    cache.verify()
    assert sorted(whole.parent.iterdir()) == sorted([whole, new])
