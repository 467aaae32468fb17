"""How a user names a variant: by its id, its target, or another name of that target.

A text for a whole package may name one variant for each component: ``encoder/ort-cpu,decoder/portable``. A
name without a component goes for every component that has none of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from aotpack.errors import UnknownName, UsageError
from aotpack.manifest.values import Component, Variant
from aotpack.targets.catalogue import find

__all__ = ["find_variant", "name_for", "split_name", "variants_named"]

#: Ids in an error; far more do not fit a line that somebody reads.
_MAX_LISTED = 12


def name_for(component: str, text: str, components: Iterable[str]) -> str | None:
    """The name that `text` has for a component; None if it names none for it.

    Args:
        component: its name.
        text: such as ``ort-cpu`` or ``encoder/ort-cpu,decoder/portable``.
        components: the names of all components of the package.

    Raises:
        UnknownName: the text names a component that the package does not have.
        UsageError: it names two variants for one component.
    """
    names: dict[str, str] = {}
    known = list(components)
    for part in text.split(","):
        of, _, name = part.strip().rpartition("/")
        if of and of not in known:
            raise UnknownName("component", of, known)
        if of in names:
            raise UsageError(
                "names two variants of one component",
                where=f"variant {text}",
                expected="one, or one for each component: COMPONENT/NAME,COMPONENT/NAME",
            )
        names[of] = name
    return names.get(component, names.get(""))


def split_name(name: str, component: str | None) -> tuple[str | None, str]:
    """The component and the variant that a name for one variant means, such as ``encoder/ort-cpu``.

    Args:
        name: with or without a component.
        component: that was named beside it, if one was.

    Raises:
        UsageError: the two name different components.
    """
    of, _, variant = name.rpartition("/")
    if of and component is not None and of != component:
        raise UsageError(
            "is of another component", where=f"variant {name}", expected=f"{component}/{variant}"
        )
    return of or component, variant


def find_variant(component: Component, name: str) -> Variant:
    """The variant with this id, or the only one for this target.

    Args:
        component: whose variant.
        name: an id, the name of a target, or a name that the target's hardware is sold under.

    Raises:
        UnknownName: there is none; the error quotes the nearest names.
        UsageError: the component has several variants for that target; the error lists their ids.
    """
    found = variants_named(component, name)
    if len(found) > 1:
        listed = [variant.id for variant in found[:_MAX_LISTED]]
        more = f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
        raise UsageError(
            f"component {component.name} has {len(found)} variants for this target",
            where=f"variant {name}",
            expected=f"the id of one: {', '.join(listed)}{more}",
        )
    return found[0]


def variants_named(component: Component, name: str) -> list[Variant]:
    """The variant with this id, or all for this target.

    Raises:
        UnknownName: there is none; the error quotes the nearest names.
    """
    by_id = {variant.id: variant for variant in component.variants}
    if name in by_id:
        return [by_id[name]]
    found = _for_target(component, name)
    if not found:
        targets = [variant.target for variant in component.variants]
        raise UnknownName("variant", name, (*by_id, *targets), hint="`aotpack inspect` lists them")
    return found


def _for_target(component: Component, name: str) -> list[Variant]:
    found = [variant for variant in component.variants if variant.target == name]
    if found:
        return found
    try:
        target = find(name).name
    except UnknownName:
        return []
    return [variant for variant in component.variants if variant.target == target]
