"""Variants that were compiled here: whole or not there at all, whatever happens to the files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from aotpack.errors import OutputError
from aotpack.machine import Ep, Machine
from aotpack.manifest import Variant
from aotpack.source.local import LocalVariants
from tests.made_packages import variant

DIGEST = "a" * 64
MACHINE = Machine(os="linux", eps={"EP": Ep(version="1.0")})


def compiled(folder: Path, content: bytes = b"blob") -> list[tuple[str, Path]]:
    files = {"model.onnx": b"onnx", "sub/model.bin": content}
    made = []
    for name, text in files.items():
        path = folder / name.replace("/", "-")
        path.write_bytes(text)
        made.append((name, path))
    return made


def keep(
    store: LocalVariants, folder: Path, content: bytes = b"blob", name: str = "some"
) -> tuple[Variant, Path]:
    return store.keep(DIGEST, "main", MACHINE, variant("ort-cpu", called=name), compiled(folder, content))


@pytest.fixture
def store(tmp_path: Path) -> LocalVariants:
    return LocalVariants(tmp_path / "cache")


def test_what_is_kept_is_found_with_its_files(store: LocalVariants, tmp_path: Path) -> None:
    assert store.find(DIGEST, "main", MACHINE) is None
    kept, folder = keep(store, tmp_path)
    assert store.find(DIGEST, "main", MACHINE) == (kept, folder)
    assert [(file.path, file.size) for file in kept.files] == [("model.onnx", 4), ("sub/model.bin", 4)]
    assert (folder / "sub/model.bin").read_bytes() == b"blob"


def test_a_later_one_takes_the_place_of_the_former(store: LocalVariants, tmp_path: Path) -> None:
    keep(store, tmp_path, b"former")
    kept, folder = keep(store, tmp_path, b"later", "later")
    assert store.find(DIGEST, "main", MACHINE) == (kept, folder)
    assert (folder / "sub/model.bin").read_bytes() == b"later"
    assert len(list((tmp_path / "cache/compiled").iterdir())) == 1


def test_another_package_component_or_machine_finds_nothing(store: LocalVariants, tmp_path: Path) -> None:
    keep(store, tmp_path)
    newer = MACHINE.model_copy(update={"eps": {"EP": Ep(version="1.1")}})
    assert store.find("b" * 64, "main", MACHINE) is None
    assert store.find(DIGEST, "other", MACHINE) is None
    assert store.find(DIGEST, "main", newer) is None


@pytest.mark.parametrize("how", ["other bytes", "cut", "gone", "no record", "broken record"])
def test_what_was_changed_since_is_not_there(store: LocalVariants, tmp_path: Path, how: str) -> None:
    _, folder = keep(store, tmp_path)
    blob, record = folder / "sub/model.bin", folder.parent / "variant.json"
    match how:
        case "other bytes":
            blob.write_bytes(b"BLOB")
        case "cut":
            blob.write_bytes(b"bl")
        case "gone":
            blob.unlink()
        case "no record":
            record.unlink()
        case "broken record":
            record.write_text(record.read_text()[:-10])
    assert store.find(DIGEST, "main", MACHINE) is None
    kept, _ = keep(store, tmp_path)
    assert store.find(DIGEST, "main", MACHINE) is not None
    assert kept.id == "some"


def test_a_copy_of_the_cache_is_checked_by_its_bytes(store: LocalVariants, tmp_path: Path) -> None:
    _, folder = keep(store, tmp_path)
    os.utime(folder / "sub/model.bin", ns=(1, 1))
    assert store.find(DIGEST, "main", MACHINE) is not None


def test_a_full_disk_leaves_the_former(
    store: LocalVariants, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, folder = keep(store, tmp_path)

    def full(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", full)
        with pytest.raises(OutputError, match="No space"):
            keep(store, tmp_path, b"later")
    assert store.find(DIGEST, "main", MACHINE) == (kept, folder)
    assert [path.name for path in (tmp_path / "cache/compiled").iterdir()] == [folder.parent.name]


def test_any_number_may_keep_at_once(store: LocalVariants, tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        mine = tmp_path / str(number)
        mine.mkdir()
        for turn in range(10):
            try:
                keep(store, mine, f"{number} {turn}".encode(), f"by-{number}")
            except OutputError as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.find(DIGEST, "main", MACHINE)
    assert found is not None
    kept, folder = found
    assert (folder / "sub/model.bin").read_bytes().decode().split()[0] == kept.id.removeprefix("by-")
    assert not errors
