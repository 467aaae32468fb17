"""What tests of all packages share: real models, and a cache that is not the user's."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from hypothesis import settings

from samples.made_models import cnn
from samples.real_models import fetch
from tests.command_line import Done, aotpack
from tests.hardware import compilable

# How long an example takes says nothing about whether it is right, and CI machines are slow.
settings.register_profile("aotpack", deadline=None)
settings.load_profile("aotpack")

# A shell starts what runs in its background with Ctrl-C ignored, which the programs under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Of the package that most tests look at, in its order.
VAD_TARGETS = (
    "ort-cpu",
    "openvino-cpu-amx",
    "openvino-cpu-avx512",
    "openvino-cpu-avx2",
    "qnn-htp-v73",
    "qnn-htp-v75",
    "qnn-htp-v79",
)


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """``real_model("magika")`` is the path of that model; the names are in tests/models.toml."""
    return fetch


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CNN of a few kilobytes, all shapes fixed."""
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(cnn(layers=2, channels=4, size=8), path)
    return path


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that packages are materialised into during the tests, in subprocesses as well."""
    folder = tmp_path_factory.mktemp("aotpack-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AOTPACK_CACHE", str(folder))
        yield folder


@dataclass(frozen=True, slots=True)
class BuiltPackage:
    """A package that the command line built, and what it said."""

    path: Path
    build: Done


@pytest.fixture(scope="session")
def vad(
    real_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, own_cache: Path
) -> BuiltPackage:
    """silero-vad for the targets of the demo, and the portable one. Read it; do not change it."""
    path = tmp_path_factory.mktemp("vad") / "vad.aotpack"
    model = real_model("silero_vad_16k_sequence")
    # A blob can only be compiled for what the CPU has: on one without AMX, say, six targets are left.
    targets = [f"--target={name}" for name in compilable(*VAD_TARGETS)]
    done = aotpack("build", model, "-o", path, "--shape", "input=1,576", *targets, "--no-reuse", "--json")
    assert done.status == 0, done.err
    return BuiltPackage(path, done)
