from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import re
import resource
from pathlib import Path

import pytest

from aotpack import errors
from aotpack.container.reader import PackageReader
from tests.attacks.forge import NOISE, ONNX, TEXT, honest
from tests.attacks.lies import LIES, Lie

#: What refusing a package may take beside what the process has already.
MEMORY = 512 * 1024 * 1024
SECONDS = 20


def _use(path: str, answer: multiprocessing.connection.Connection) -> None:
    """Open a package and read all of it, under limits, and send (error's class, error's text)."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    try:
        with PackageReader.open(Path(path)) as reader:
            for variant in reader.manifest.variants():
                for file in variant.files:
                    reader.read_file(file)
        answer.send(("", "nothing was refused"))
    except BaseException as error:
        answer.send((type(error).__name__, str(error)))


def refusal(path: Path) -> tuple[str, str]:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_use, args=(str(path), sender))
    process.start()
    sender.close()
    try:
        answer: tuple[str, str] = receiver.recv() if receiver.poll(2 * SECONDS) else ("hung", "")
    except EOFError:
        answer = ("died", "")
    process.kill()
    process.join()
    return answer


@pytest.mark.parametrize("lie", LIES, ids=[lie.name for lie in LIES])
def test_a_lie_is_refused_by_its_own_error(lie: Lie, tmp_path: Path) -> None:
    forged = honest()
    lie.tell(forged)
    kind, text = refusal(forged.write(tmp_path / "forged.aotpack"))
    assert kind == lie.error.__name__, text
    assert re.search(lie.match, text)
    assert "forged.aotpack" in text
    assert "\n" not in text
    assert len(text) < 1000


def test_without_a_lie_nothing_is_refused(tmp_path: Path) -> None:
    with PackageReader.open(honest().write(tmp_path / "honest.aotpack")) as reader:
        files = reader.manifest.components[0].variants[0].files
        assert [reader.read_file(file) for file in files] == [ONNX, NOISE + TEXT]
        reader.verify()


def test_a_newer_minor_version_is_read_without_what_it_added(tmp_path: Path) -> None:
    newer = honest()
    newer.version = (1, 9)
    newer.manifest["aotpack"] = "1.9"
    newer.variant["news"] = {"of": ["the", "future"]}
    with PackageReader.open(newer.write(tmp_path / "newer.aotpack")) as reader:
        reader.verify()


@pytest.mark.parametrize("length", [0, 1, 63, 64, 100])
def test_a_package_that_ends_early(length: int, tmp_path: Path) -> None:
    path = honest().write(tmp_path / "short.aotpack")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(errors.FormatError):
        PackageReader.open(path)


def test_a_file_that_is_not_what_its_digest_says_is_found_by_verify(tmp_path: Path) -> None:
    forged = honest()
    forged.files[1]["sha256"] = "0" * 64
    forged.segments[2]["xxh3"] = "0" * 32
    with (
        PackageReader.open(forged.write(tmp_path / "forged.aotpack")) as reader,
        pytest.raises(
            errors.DigestMismatch,
            match=r"3 places.*segments\[2\].*xxh3.*model\.onnx: holds.*model\.bin: differs",
        ),
    ):
        reader.verify()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    dest = tmp_path / "model.onnx"
    dest.symlink_to(victim)
    with PackageReader.open(honest().write(tmp_path / "honest.aotpack")) as reader:
        file = reader.manifest.components[0].variants[0].files[0]
        with pytest.raises(errors.OutputError, match="File exists"):
            reader.copy_file(file, dest)
    assert victim.read_bytes() == b"precious"
    assert dest.is_symlink()


def test_what_is_not_a_file_is_no_package(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, match in ((tmp_path / "pipe", "is not a file"), (tmp_path, "is not a file")):
        with pytest.raises(errors.PackageError, match=match):
            PackageReader.open(path)
    with pytest.raises(errors.PackageNotFound):
        PackageReader.open(tmp_path / "nowhere")


def test_a_disk_that_cannot_be_read_is_told_in_a_line() -> None:
    # A file of the kernel's that has a size and gives no byte of it.
    for path in Path("/sys/class/net/lo").glob("speed"):
        with pytest.raises(errors.PackageError, match="speed: cannot be read: "):
            PackageReader.open(path)


def test_every_lie_has_a_name_of_its_own() -> None:
    names = [lie.name for lie in LIES]
    assert len(set(names)) == len(names) > 80
    assert json.dumps(names)
