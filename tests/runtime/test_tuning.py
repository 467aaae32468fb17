"""What was measured is found again for the same machine, package and component, and for no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aotpack.errors import OutputError, UsageError
from aotpack.machine.profile import Ep, Gpu, Machine
from aotpack.runtime.probing import probe
from aotpack.runtime.tuning import Measurement, Tuning, TuningStore

DIGEST, OTHER = "a" * 64, "b" * 64
FAST = Measurement(variant="fast", target="t", run_seconds=0.001, runs=3)
DEAD = Measurement(variant="dead", target="t", failure="killed by SIGSEGV")
MACHINE = Machine(os="linux", eps={"EP": Ep(version="1.0")})


def keep(root: Path, *measurements: Measurement, machine: Machine = MACHINE, component: str = "main") -> Path:
    tuning = Tuning(
        package="p", digest=DIGEST, component=component, machine=machine.key(), measurements=measurements
    )
    return TuningStore(root).write(tuning)


def test_what_was_written_is_read_and_what_comes_later_takes_its_place(tmp_path: Path) -> None:
    store = TuningStore(tmp_path)
    assert store.read(DIGEST, "main", MACHINE) == {}
    keep(tmp_path, FAST, DEAD)
    assert store.read(DIGEST, "main", MACHINE) == {"fast": FAST, "dead": DEAD}
    keep(tmp_path, FAST)
    assert store.read(DIGEST, "main", MACHINE) == {"fast": FAST}


@pytest.mark.parametrize(
    "change",
    [
        {"eps": {"EP": Ep(version="1.1")}},
        {"eps": {"EP": Ep(version="1.0", details={"runtime": "2"})}},
        {"onnxruntime": "1.33.0"},
        {"gpus": (Gpu(vendor="nvidia", driver="581.15"),)},
        {"environment": {"ONEDNN_MAX_CPU_ISA": "AVX2"}},
        {"os": "windows"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_machine_package_or_component_finds_nothing(
    tmp_path: Path, change: dict[str, object]
) -> None:
    keep(tmp_path, FAST)
    store = TuningStore(tmp_path)
    assert store.read(DIGEST, "main", MACHINE.replace(**change)) == {}
    assert store.read(OTHER, "main", MACHINE) == {}
    assert store.read(DIGEST, "other", MACHINE) == {}
    assert store.read(DIGEST, "main", MACHINE.replace(name="renamed", memory=1))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"package": "p"}', b"\xff\xfe"])
def test_what_cannot_be_read_was_not_measured(tmp_path: Path, content: bytes) -> None:
    keep(tmp_path, FAST).write_bytes(content)
    assert TuningStore(tmp_path).read(DIGEST, "main", MACHINE) == {}


def test_a_cache_that_cannot_be_written_is_an_error_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match="is a file, or a link that leads nowhere") as caught:
        keep(tmp_path / "file", FAST)
    assert "\n" not in str(caught.value)


def test_who_is_killed_while_writing_leaves_the_former(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, FAST)

    def killed(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(OutputError, match="No space"):
            keep(tmp_path, DEAD)
    assert TuningStore(tmp_path).read(DIGEST, "main", MACHINE) == {"fast": FAST}


def test_this_machine_has_a_key_that_stays(tmp_path: Path) -> None:
    keep(tmp_path, FAST, machine=probe())
    assert TuningStore(tmp_path).read(DIGEST, "main", probe()) == {"fast": FAST}
