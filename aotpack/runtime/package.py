"""An opened package: choose a variant, load it, check it, take its files out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from aotpack.cache.layout import TUNING
from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from aotpack.errors import UnknownName, UsageError
from aotpack.files.regular import is_folder
from aotpack.machine.profile import Machine
from aotpack.manifest.values import Component, Manifest, Variant
from aotpack.runtime.load_options import LoadKeywords, LoadOptions, SelectKeywords, SelectOptions, takes
from aotpack.runtime.loading import Loaded, load_first
from aotpack.runtime.probing import probe
from aotpack.selection.buckets import best, buckets, shapes_by_model
from aotpack.selection.policy import VARIANT_VARIABLE, Measured, Policy
from aotpack.selection.select import Selection, select
from aotpack.selection.variant_names import find_variant, name_for, split_name, variants_named
from aotpack.selection.verdict import Rules
from aotpack.toolchains import toolchains
from aotpack.toolchains.rules import with_known_answers

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Loaded", "Package", "load", "load_all", "open_package", "select_variant"]


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
    def cache(self) -> Cache:
        """Where its variants are put together."""
        if self._cache is None:
            self._cache = Cache()
        return self._cache

    def rules(self, machine: Machine) -> Mapping[str, Rules]:
        """What judges variants for this computer, `machine`, with what its EPs have answered before."""
        return with_known_answers(toolchains(), self.cache.root, machine)

    @property
    def reader(self) -> PackageReader:
        """Its bytes."""
        return self._reader

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    @property
    def component_names(self) -> tuple[str, ...]:
        """The names of its components, in the package's order."""
        return tuple(component.name for component in self.manifest.components)

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
        raise UnknownName("component", name, self.component_names)

    def variant(self, name: str, component: str | None = None) -> Variant:
        """The variant with this id, or the only one for this target.

        Args:
            name: with the component in front where it is not the first one: ``encoder/ort-cpu``.
            component: the same by itself.

        Raises:
            UnknownName: there is none.
            UsageError: there are several for that target, or two components are named.
        """
        component, name = split_name(name, component)
        return find_variant(self.component(component), name)

    @takes(SelectOptions)
    def select(
        self,
        *,
        component: str | None = None,
        machine: Machine | None = None,
        **options: Unpack[SelectKeywords],
    ) -> Selection:
        """Rank all variants of a component for a machine.

        Args:
            component: its name; by default the first one.
            machine: whom for; by default this computer, whose EPs are then asked.
            options: how a variant is chosen (`SelectOptions`). On this computer ``AOTPACK_VARIANT`` names the
                one variant to take where the policy names none.
        """
        return self.select_with(SelectOptions(**options), component=component, machine=machine)

    def select_with(
        self, options: SelectOptions, *, component: str | None = None, machine: Machine | None = None
    ) -> Selection:
        """As `select`, with options that were put together before."""
        given = policy = options.whole_policy
        here = machine is None
        if here:
            policy, machine = policy.with_environment(), probe()
        assert machine is not None
        asked_by = VARIANT_VARIABLE if policy is not given else None
        known = self.rules(machine) if here else toolchains()
        selections = []
        unknown: UnknownName | None = None
        for each in (options.shapes and buckets(self.manifest, component)) or [self.component(component)]:
            try:
                own = self._policy_for(each, policy, asked_by)
            except UnknownName as error:
                # Buckets of one model need not have the same variants.
                unknown = unknown or error
                continue
            measured = self._measured(each, machine) if here else {}
            selections.append(
                select(
                    each,
                    machine,
                    known,
                    here=here,
                    policy=own,
                    measured=measured,
                    shapes=options.shapes,
                    custom_ops=bool(options.custom_ops),
                )
            )
        if unknown is not None and not selections:
            raise unknown
        return best(selections)

    def _measured(self, component: Component, machine: Machine) -> Mapping[str, Measured]:
        """What `aotpack tune` measured of a component on this computer, by variant id."""
        if not is_folder(self.cache.root / TUNING):
            return {}
        from aotpack.runtime.tuning import TuningStore

        return TuningStore(self.cache.root).read(self.digest, component.name, machine)

    def _policy_for(self, component: Component, policy: Policy, asked_by: str | None) -> Policy:
        """The policy with the name alone that it has for a variant of this component.

        Args:
            component: of this package.
            policy: which may name variants of several components.
            asked_by: the environment variable that named them; None: the caller did.

        Raises:
            UnknownName: the component has no such variant.
        """
        if policy.variant is None:
            return policy
        try:
            named = name_for(component.name, policy.variant, self.component_names)
            if named is not None:
                variants_named(component, named)
        except UsageError as error:
            several = len(self.manifest.components) > 1
            places = [asked_by, f"component {component.name}" if several else None]
            for place in filter(None, reversed(places)):
                error.at(place)
            raise
        return replace(policy, variant=named)

    def select_all(
        self, options: SelectOptions, *, component: str | None = None, machine: Machine | None = None
    ) -> list[Selection]:
        """A selection for each component, in the package's order; for one model alone where it is named.

        Args:
            options: where they have shapes, buckets of one model count as one component, and each is asked
                for the shapes of its own inputs and dimensions.
            component: a component's name.
            machine: as `select`'s.
        """
        if component is not None:
            return [self.select_with(options, component=component, machine=machine)]
        if not options.shapes:
            asked = [(name, options) for name in self.component_names]
        else:
            shapes = shapes_by_model(self.manifest, options.shapes)
            asked = [(name, replace(options, shapes=own)) for name, own in shapes.items()]
        return [self.select_with(own, component=name, machine=machine) for name, own in asked]

    @takes(LoadOptions)
    def load(
        self,
        selection: Selection | None = None,
        *,
        component: str | None = None,
        **options: Unpack[LoadKeywords],
    ) -> onnxruntime.InferenceSession:
        """A session on the best variant that loads. As `load_first`, without how it came about."""
        return self.load_first(selection, component=component, **options).session

    @takes(LoadOptions)
    def load_all(self, **options: Unpack[LoadKeywords]) -> dict[str, onnxruntime.InferenceSession]:
        """A session for each component by its name, in the package's order: all of them, or an error.

        Args:
            options: as for `load_first`.

        Raises:
            NothingToLoad: a component has no variant that loads; the error names it.
        """
        return self.load_all_with(LoadOptions(**options))

    def load_all_with(self, options: LoadOptions) -> dict[str, onnxruntime.InferenceSession]:
        """As `load_all`, with options that were put together before."""
        # What cannot be chosen is known before the first session takes memory.
        selections = self.select_all(options)
        return {each.component: self.load_with(options, each).session for each in selections}

    @takes(LoadOptions)
    def load_first(
        self,
        selection: Selection | None = None,
        *,
        component: str | None = None,
        **options: Unpack[LoadKeywords],
    ) -> Loaded:
        """Go down the accepted candidates until one gives a session.

        Args:
            selection: from `select`; by default one is made, as the arguments that follow say.
            component: its name; by default the first one.
            options: how a variant is chosen, and how its session is made (`LoadOptions`).

        Raises:
            NothingToLoad: none did; the error lists every variant with its reason.
        """
        return self.load_with(LoadOptions(**options), selection, component=component)

    def load_with(
        self, options: LoadOptions, selection: Selection | None = None, *, component: str | None = None
    ) -> Loaded:
        """As `load_first`, with options that were put together before."""
        if selection is None:
            selection = self.select_with(options, component=component)
        return load_first(self, selection, options)

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Check every byte against its digest, and what each variant asks for.

        Raises:
            DigestMismatch: some bytes are wrong; all of them are named.
            NotAllowed: some variants ask for what no package may (`aotpack.runtime.refusals`); all are named.
        """
        from aotpack.runtime.refusals import check_models

        self._reader.verify(progress)
        check_models(self._reader)

    def extract(
        self, name: str, folder: str | os.PathLike[str], *, component: str | None = None
    ) -> list[Path]:
        """Write the files of a variant into the new folder `folder`; all of them or none.

        Args:
            name: the variant's id, or its target where that has one variant; with a component in front
                (``encoder/ort-cpu``) as for `variant`.
            folder: a new folder, or one that is empty.
            component: by default the first one.

        Raises:
            OutputError: the folder exists and is not empty, or cannot be written.
            UnknownName: there is no such variant.
        """
        from aotpack.container.partial import new_folder

        component, name = split_name(name, component)
        files = self.variant(name, component).files
        folder = Path(folder)
        with new_folder(folder) as partial:
            for file in files:
                dest = partial / file.path
                dest.parent.mkdir(parents=True, exist_ok=True)
                self._reader.copy_file(file, dest)
        return [folder / file.path for file in files]


def open_package(path: str | os.PathLike[str], *, cache: Cache | None = None) -> Package:
    """Open a package. Only its manifest is read.

    Args:
        path: of the package.
        cache: where its variants are put together, and all else is kept that comes of it; by default the
            user's.

    Raises:
        PackageNotFound: there is no such file.
        FormatError: it is not a well-formed package.
    """
    return Package(PackageReader.open(Path(path)), cache=cache)


@takes(SelectOptions)
def select_variant(
    path: str | os.PathLike[str],
    *,
    component: str | None = None,
    machine: Machine | None = None,
    **options: Unpack[SelectKeywords],
) -> Selection:
    """Rank the variants of a package for a machine.

    Args:
        path: of the package.
        component: its name; by default the first one.
        machine: whom for; by default this computer, whose EPs are then asked.
        options: how a variant is chosen (`SelectOptions`).

    Raises:
        PackageNotFound, FormatError: as for `aotpack.open`.
        UnknownName: the package has no such component, the policy asks for a variant that it lacks, or a
            shape is for no input and no dimension.
    """
    how = SelectOptions(**options)
    with open_package(path) as package:
        return package.select_with(how, component=component, machine=machine)


@takes(LoadOptions)
def load(
    path: str | os.PathLike[str], *, component: str | None = None, **options: Unpack[LoadKeywords]
) -> onnxruntime.InferenceSession:
    """A session on the best variant for this machine that loads.

    Args:
        path: of the package.
        component: its name; by default the first one.
        options: how a variant is chosen, and how its session is made (`LoadOptions`).

    Raises:
        PackageNotFound, FormatError: as for `aotpack.open`.
        NothingToLoad: no variant gave a session; the error lists each with its reason.
    """
    how = LoadOptions(**options)
    with open_package(path) as package:
        return package.load_with(how, component=component).session


@takes(LoadOptions)
def load_all(
    path: str | os.PathLike[str], **options: Unpack[LoadKeywords]
) -> dict[str, onnxruntime.InferenceSession]:
    """A session for each component of a package by its name: all of them, or an error.

    Args:
        path: of the package.
        options: how variants are chosen, and how their sessions are made (`LoadOptions`).

    Raises:
        PackageNotFound, FormatError: as for `aotpack.open`.
        NothingToLoad: a component has no variant that loads; the error names it.
    """
    how = LoadOptions(**options)
    with open_package(path) as package:
        return package.load_all_with(how)
