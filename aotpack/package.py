"""An opened package: choose a variant, load it, check it, take its files out."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aotpack.container.reader import PackageReader
from aotpack.errors import AotpackError, NothingToLoad, OutputError, ToolchainMissing, UnknownName
from aotpack.machine import Machine, probe
from aotpack.manifest import Component, Manifest, Variant
from aotpack.selection import Candidate, Policy, Selection, select
from aotpack.session import create
from aotpack.source.cache import Cache
from aotpack.toolchain import toolchains

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Loaded", "Package", "load", "open_package", "select_variant"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A session, and how it came about."""

    session: onnxruntime.InferenceSession
    candidate: Candidate
    #: (variant id, reason) of those that were tried before.
    refused: tuple[tuple[str, str], ...] = ()


class Package:
    """An open package. Close it, or use it as a context manager; sessions outlive it."""

    def __init__(self, reader: PackageReader, *, cache: Cache | None = None) -> None:
        self._reader = reader
        self._cache = cache

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        variants = sum(len(component.variants) for component in self.manifest.components)
        return f"<Package {self.name}: {variants} variants>"

    @property
    def name(self) -> str:
        """Where it came from."""
        return self._reader.source.name

    @property
    def manifest(self) -> Manifest:
        """What it says of itself."""
        return self._reader.manifest

    @property
    def digest(self) -> str:
        """sha256 of the manifest, hex: the identity of the package."""
        return self._reader.digest

    @property
    def reader(self) -> PackageReader:
        """Its bytes."""
        return self._reader

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def component(self, name: str | None = None) -> Component:
        """The component called `name`; without a name the first one.

        Raises:
            UnknownName: there is none.
        """
        components = self.manifest.components
        if name is None:
            return components[0]
        for component in components:
            if component.name == name:
                return component
        raise UnknownName("component", name, (component.name for component in components))

    def variant(self, variant: str, component: str | None = None) -> Variant:
        """The variant with this id.

        Raises:
            UnknownName: there is none.
        """
        variants = self.component(component).variants
        for each in variants:
            if each.id == variant:
                return each
        raise UnknownName("variant", variant, (each.id for each in variants))

    def select(
        self,
        *,
        component: str | None = None,
        machine: Machine | None = None,
        policy: Policy | None = None,
        emulate: bool = False,
    ) -> Selection:
        """Rank all variants of a component for a machine.

        Args:
            component: its name; by default the first one.
            machine: whom for; by default this computer, whose EPs are then asked.
            policy: what the user wants of the choice.
            emulate: an emulated device counts as a device.
        """
        policy = policy or Policy()
        if emulate and not policy.emulate:
            from dataclasses import replace

            policy = replace(policy, emulate=True)
        return select(
            self.component(component),
            probe() if machine is None else machine,
            toolchains(),
            here=machine is None,
            policy=policy,
        )

    def load(
        self, selection: Selection | None = None, *, component: str | None = None, emulate: bool = False
    ) -> onnxruntime.InferenceSession:
        """A session on the best variant that loads. As `load_first`, without how it came about."""
        return self.load_first(selection, component=component, emulate=emulate).session

    def load_first(
        self, selection: Selection | None = None, *, component: str | None = None, emulate: bool = False
    ) -> Loaded:
        """Go down the accepted candidates until one gives a session.

        Args:
            selection: from `select`; by default one is made.
            component: its name, if no selection is given.
            emulate: take an emulated device, if no selection is given.

        Raises:
            NothingToLoad: none did; the error lists every variant with its reason.
        """
        if selection is None:
            selection = self.select(component=component, emulate=emulate)
        chosen_from = self.component(selection.component)
        for candidate in selection.rejected:
            _log.info(
                "%s: not taken [%s]: %s", candidate.id, candidate.verdict.code, candidate.verdict.reason
            )
        refused: list[tuple[str, str]] = []
        for candidate in selection.accepted:
            if selection.last_resort:
                _log.warning("%s: nobody can say whether it fits; nothing else is left", candidate.id)
            try:
                session = self._session(chosen_from, candidate)
            except Exception as error:
                # Vendors' libraries raise what they like; the next candidate may load all the same.
                sentence = " ".join(str(error).split()) or type(error).__name__
                _log.warning("%s: refused [load-failed]: %s", candidate.id, sentence)
                refused.append((candidate.id, sentence))
                continue
            _log.info("%s: loaded [%s]", candidate.id, candidate.verdict.code)
            return Loaded(session, candidate, tuple(refused))
        rest = [(candidate.id, candidate.verdict.reason) for candidate in selection.rejected]
        raise NothingToLoad(self.name, [*refused, *rest])

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Check every byte against its digest.

        Raises:
            DigestMismatch: some are wrong; all of them are named.
        """
        self._reader.verify(progress)

    def extract(self, variant: str, folder: Path, *, component: str | None = None) -> list[Path]:
        """Write the files of a variant into the new folder `folder`; all of them or none.

        Raises:
            OutputError: the folder exists and is not empty, or cannot be written.
            UnknownName: there is no such variant.
        """
        files = self.variant(variant, component).files
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError("exists already", where=folder, expected="a new or an empty folder")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        except OSError as error:
            raise OutputError(error.strerror or str(error), where=folder) from None
        try:
            for file in files:
                dest = partial / file.path
                dest.parent.mkdir(parents=True, exist_ok=True)
                self._reader.copy_file(file, dest)
            partial.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            partial.rename(folder)
        except OSError as error:
            if isinstance(error, AotpackError):
                raise
            raise OutputError(error.strerror or str(error), where=folder) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return [folder / file.path for file in files]

    def _session(self, component: Component, candidate: Candidate) -> onnxruntime.InferenceSession:
        variant = candidate.variant
        toolchain = toolchains().get(variant.toolchain)
        if toolchain is None:
            raise ToolchainMissing(
                "is not known here",
                where=f"toolchain {variant.toolchain}",
                hint=f"install the package that adds it; the variant's EP is {variant.ep}",
            )
        cache = self._cache or Cache()
        folder = cache.materialise(self._reader, component, variant)
        _log.debug("%s: files in %s", variant.id, folder)
        emulate = candidate.verdict.code == "emulated"
        return create(variant, folder / variant.files[0].path, toolchain, emulate=emulate)


def open_package(path: str | os.PathLike[str]) -> Package:
    """Open a package. Only its manifest is read.

    Raises:
        PackageNotFound: there is no such file.
        FormatError: it is not a well-formed package.
    """
    return Package(PackageReader.open(Path(path)))


def select_variant(
    path: str | os.PathLike[str],
    *,
    component: str | None = None,
    machine: Machine | None = None,
    policy: Policy | None = None,
    emulate: bool = False,
) -> Selection:
    """Rank the variants of a package for a machine. As `Package.select`."""
    with open_package(path) as package:
        return package.select(component=component, machine=machine, policy=policy, emulate=emulate)


def load(
    path: str | os.PathLike[str],
    *,
    component: str | None = None,
    policy: Policy | None = None,
    emulate: bool = False,
) -> onnxruntime.InferenceSession:
    """A session on the best variant for this machine. As `Package.load`."""
    with open_package(path) as package:
        return package.load(package.select(component=component, policy=policy, emulate=emulate))
