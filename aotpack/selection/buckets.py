"""Buckets: components that are one model at several sets of sizes, and the choice among them.

A build file's component ``decoder`` with the buckets ``short`` and ``long`` becomes the components
``decoder.short`` and ``decoder.long``. Whoever knows the shapes of the inputs need not know these names.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotpack.manifest.values import Component, Manifest
from aotpack.selection.select import Selection
from aotpack.selection.shapes import Wanted, dimension_names, fixed_axes

__all__ = ["best", "buckets", "shapes_by_model"]


def buckets(manifest: Manifest, name: str | None) -> list[Component]:
    """The components that a name stands for: the one that has it, or the buckets of it.

    Args:
        manifest: of a package.
        name: of a component, of one that has buckets or, None, of the first one.

    Returns:
        Those of one model, in the package's order; none if no component is called so.
    """
    components = manifest.components
    if name is None:
        first = components[0]
        stem, dot, _ = first.name.rpartition(".")
        same = _called(components, stem) if dot else []
        # Other components may have dots in their names as well.
        return same if len(same) > 1 else [first]
    return [each for each in components if each.name == name] or _called(components, name)


def shapes_by_model(manifest: Manifest, shapes: Wanted) -> dict[str, dict[str, int | Sequence[int]]]:
    """The shapes that each model of a package is asked for, by the name that stands for its components.

    Args:
        manifest: of a package.
        shapes: by the name of an input or dimension of any of its models. What no model has is left to each,
            so that choosing can say what there is.
    """
    models: dict[str, list[Component]] = {}
    for component in manifest.components:
        stem = component.name.rpartition(".")[0]
        same = _called(manifest.components, stem) if stem else []
        if len(same) > 1 and component in same:
            models[stem] = same
        else:
            models[component.name] = [component]
    names = {
        name: {info.name for each in components for info in each.inputs}.union(
            *(dimension_names(each.inputs) for each in components)
        )
        for name, components in models.items()
    }
    known = set[str]().union(*names.values())
    asked = {
        name: {key: value for key, value in shapes.items() if key in own or key not in known}
        for name, own in names.items()
    }
    # Without a shape the first bucket is as good as any, and has a name of its own.
    return {name if asked[name] else models[name][0].name: asked[name] for name in models}


def _called(components: Sequence[Component], stem: str) -> list[Component]:
    found = [each for each in components if each.name.rpartition(".")[0] == stem]
    return [each for each in found if each.source == found[0].source]


def best(selections: Sequence[Selection]) -> Selection:
    """The selection among those of buckets whose choice suits the shapes best; the first of equals.

    One that gives a compiled variant is better than one that gives the portable one, and that than none; a
    variant that was compiled for the shapes is better than one that takes any.
    """
    return min(selections, key=_order)


def _order(selection: Selection) -> tuple[bool, bool, bool, int]:
    chosen = selection.chosen
    if chosen is None:
        return True, True, True, 0
    return False, selection.last_resort, chosen.portable, -fixed_axes(chosen.variant)
