"""What was compiled or measured on this machine lies in the cache like all else, and counts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aotpack.cache.local import LocalVariants
from aotpack.cache.variants import Cache, Held
from aotpack.container.reader import PackageReader
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Variant
from aotpack.runtime.probing import probe
from aotpack.runtime.tuning import Measurement, Tuning, TuningStore
from aotpack.selection.policy import Policy
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


def hold_new(cache: Cache, machine: Machine, folder: Path) -> tuple[Variant, Held]:
    with PackageReader.open(package(folder, FILES, name="vad")) as built:
        (component,) = built.manifest.components
        return LocalVariants(cache).keep(DIGEST, "encoder", machine, Policy(), built, component)


def keep(cache: Cache, machine: Machine, folder: Path) -> tuple[Variant, Path]:
    variant, held = hold_new(cache, machine, folder)
    held.close()
    return variant, held.folder


def find(
    cache: Cache,
    machine: Machine,
    policy: Policy | None = None,
    *,
    digest: str = DIGEST,
    component: str = "encoder",
) -> tuple[Variant, Path] | None:
    found = LocalVariants(cache).hold(digest, component, machine, policy or Policy())
    if found is None:
        return None
    with found[1]:
        return found[0], found[1].folder


def measure(cache: Cache, machine: Machine) -> Path:
    measured = (Measurement(variant="a", target="ort-cpu", run_seconds=0.001),)
    return TuningStore(cache.root).write(
        Tuning(package="p", digest=DIGEST, component="main", machine=machine.key(), measurements=measured)
    )


def test_what_was_compiled_here_is_found_again(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    assert find(cache, machine) is None
    variant, folder = keep(cache, machine, tmp_path)
    assert find(cache, machine) == (variant, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES["main"]["here"]
    assert find(cache, machine, component="decoder") is None
    assert find(cache, machine, digest="6" * 64) is None
    other = machine.replace(onnxruntime="0.1")
    assert find(cache, other) is None
    for narrower in (Policy(devices=["npu"]), Policy(eps=frozenset({"QNNExecutionProvider"}))):
        assert find(cache, machine, narrower) is None
    # What has no say in what is compiled makes no other key.
    assert find(cache, machine, Policy(memory_limit=1, measured=True)) is not None


def test_it_is_listed_counted_and_removed_like_others(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    keep(cache, machine, tmp_path)
    (entry,) = cache.entries()
    assert (entry.package, entry.component, entry.variant, entry.size) == ("vad", "encoder", "here", SIZE)
    assert SIZE < cache.size() < SIZE + 5000
    assert cache.prune(1000) == [entry]
    assert find(cache, machine) is None
    assert cache.size() == 0
    assert list((cache.root / "compiled").iterdir()) == []


def test_one_that_is_damaged_is_not_found(cache: Cache, machine: Machine, tmp_path: Path) -> None:
    _, folder = keep(cache, machine, tmp_path)
    damaged = folder / "m.bin"
    os.utime(damaged, ns=(1, 1))
    assert find(cache, machine) is not None
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[::-1])
    assert find(cache, machine) is None
    assert [entry.variant for entry in cache.verify()] == ["here"]
    assert cache.size() == 0


def test_what_was_just_compiled_is_not_removed_before_its_session_is_made(
    cache: Cache, machine: Machine, tmp_path: Path
) -> None:
    variant, held = hold_new(cache, machine, tmp_path)
    assert cache.prune(0) == []
    again = cache.hold_known(held.key, variant)
    assert again is not None
    assert {path.name: path.read_bytes() for path in again.folder.iterdir()} == FILES["main"]["here"]
    for each in (held, again):
        each.close()
    assert [entry.variant for entry in cache.prune(0)] == ["here"]


def test_a_folder_of_measurements_goes_when_it_is_empty(cache: Cache, machine: Machine) -> None:
    folder = measure(cache, machine).parent
    cache.prune()
    assert folder.exists()
    cache.prune(0)
    assert not folder.exists()
    assert measure(cache, machine).parent == folder


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
