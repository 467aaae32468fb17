"""Variants of a package that are refused whatever the machine, since they ask for what no package may.

`aotpack.selection.verdict.judge` says so where variants are chosen; here it is said of a whole package, for
those who look at one or write one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aotpack.container.model_files import check_packaged_model
from aotpack.container.reader import PackageReader
from aotpack.errors import NotAllowed
from aotpack.manifest.model_check import ANY_DOMAIN, Allowance
from aotpack.manifest.values import Component
from aotpack.selection.settings import settings_issue
from aotpack.selection.verdict import Code
from aotpack.toolchains import toolchains

__all__ = ["RefusedVariant", "check_models", "check_settings", "refused"]

#: Refusals that an error lists.
_MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class RefusedVariant:
    """A variant that no machine may load."""

    component: str
    variant: str
    #: ``option-not-allowed`` or ``model-not-allowed``.
    code: Code
    #: One sentence.
    reason: str


def refused(components: Iterable[Component]) -> list[RefusedVariant]:
    """The variants that set what no package may set with their toolchain. Reads nothing but the manifest.

    Those of toolchains that are not known here, or failed, are not among them: nobody can say, and nothing
    loads them.
    """
    known = toolchains()
    return [
        RefusedVariant(component.name, variant.id, Code.OPTION_NOT_ALLOWED, issue)
        for component in components
        for variant in component.variants
        if (toolchain := known.get(variant.toolchain)) is not None
        and toolchain.failure is None
        and (issue := settings_issue(variant.session, toolchain)) is not None
    ]


def check_settings(components: Iterable[Component], where: object) -> None:
    """Refuse to go on with a package in which variants set what no package may set.

    Args:
        components: of the package.
        where: the package, for the error.

    Raises:
        NotAllowed: some do; all of them are named.
    """
    _raise(refused(components), where)


def check_models(reader: PackageReader) -> None:
    """As `check_settings`, of the ONNX of each variant as well (`aotpack.manifest.model_check`).

    Operators of domains that ONNX Runtime does not have are let through: whether there are kernels for them
    is known where a package is loaded.

    Raises:
        NotAllowed: some ask for what no package may; all of them are named.
        DigestMismatch, FormatError: the package is damaged.
    """
    found = refused(reader.manifest.components)
    known = toolchains()
    for component in reader.manifest.components:
        for variant in component.variants:
            allowance = Allowance.of(known.get(variant.toolchain), domains=ANY_DOMAIN)
            try:
                check_packaged_model(reader, variant, allowance)
            except NotAllowed as error:
                reason = f"{error}."
                found.append(RefusedVariant(component.name, variant.id, Code.MODEL_NOT_ALLOWED, reason))
    _raise(found, reader.source.name)


def _raise(found: list[RefusedVariant], where: object) -> None:
    if not found:
        return
    listed = "; ".join(
        f"{each.component}/{each.variant} [{each.code}] {each.reason.removesuffix('.')}"
        for each in found[:_MAX_LISTED]
    )
    more = f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
    raise NotAllowed(
        f"{len(found)} of its variants ask for what no package may",
        where=where,
        found=listed + more,
        hint="build it again, or take a package without them from it with `aotpack prune --drop`",
    )
