"""A package against many machines: what each gets, what nobody gets, and which target would help most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aotpack.errors import ProfileError
from aotpack.machine import Machine, find_machine, known
from aotpack.manifest import Compatibility, Component, Variant
from aotpack.policy import Policy
from aotpack.selection import Selection, select
from aotpack.target import PORTABLE, Target, catalogue
from aotpack.toolchain import toolchains
from aotpack.toolchain.base import Toolchain

__all__ = ["Coverage", "Help", "cover", "machines_of"]


@dataclass(frozen=True, slots=True)
class Help:
    """A target that the package lacks, and the machines that would take it before all that they have."""

    target: Target
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """One component against a fleet."""

    component: Component
    #: By machine, in the order they were given.
    selections: Mapping[str, Selection]
    #: Best first; targets of equally many machines in the catalogue's order.
    helpful: tuple[Help, ...]

    @property
    def unused(self) -> tuple[str, ...]:
        """Ids of the variants that no machine gets."""
        chosen = {item.chosen.id for item in self.selections.values() if item.chosen is not None}
        return tuple(variant.id for variant in self.component.variants if variant.id not in chosen)

    @property
    def portable_only(self) -> tuple[str, ...]:
        """Machines that fall back to the portable variant."""
        return tuple(
            name for name, item in self.selections.items() if item.chosen is not None and item.chosen.portable
        )

    @property
    def without(self) -> tuple[str, ...]:
        """Machines that get nothing."""
        return tuple(name for name, item in self.selections.items() if item.chosen is None)


def machines_of(texts: Sequence[str]) -> dict[str, Machine]:
    """The machines of names, profiles and folders of profiles; all that are `known` if there are none.

    Raises:
        ProfileError: a folder holds no profile, or a file is none.
        UnknownName: a name is not known.
    """
    machines: dict[str, Machine] = {}
    for text in texts or known():
        folder = Path(text)
        if folder.is_dir():
            paths = sorted(folder.glob("*.json"))
            if not paths:
                raise ProfileError("holds no machine profile", where=folder, expected="files named *.json")
            machines |= {path.stem: find_machine(str(path)) for path in paths}
        else:
            machines[Path(text).stem if folder.suffix == ".json" else text] = find_machine(text)
    return machines


def cover(component: Component, machines: Mapping[str, Machine], policy: Policy | None = None) -> Coverage:
    """What each of `machines` gets of `component` under a policy; nothing is asked of EPs here."""
    rules = toolchains()
    selections = {
        name: select(component, machine, rules, here=False, policy=policy)
        for name, machine in machines.items()
    }
    offered = _with_every_target(component, rules)
    wishes: dict[str, list[str]] = {}
    for name, machine in machines.items():
        best = select(offered, machine, rules, here=False, policy=policy).chosen
        if best is not None and best.id.startswith(_OFFERED):
            wishes.setdefault(best.variant.target, []).append(name)
    targets = _targets(rules)
    helpful = sorted(wishes.items(), key=lambda item: -len(item[1]))
    return Coverage(component, selections, tuple(Help(targets[name], tuple(who)) for name, who in helpful))


#: No packaged variant's id starts so.
_OFFERED = "?"


def _targets(rules: Mapping[str, Toolchain]) -> dict[str, Target]:
    return catalogue(target for toolchain in rules.values() for target in toolchain.targets())


def _with_every_target(component: Component, rules: Mapping[str, Toolchain]) -> Component:
    """`component`, and behind what it has the variants that the installed toolchains could add to it."""
    offered = [
        Variant.model_construct(
            id=f"{_OFFERED}{target.name}",
            target=target.name,
            toolchain=target.toolchain,
            ep=target.ep,
            device=target.device,
            specificity=target.specificity,
            compatibility=Compatibility(
                ep_string=rules[target.toolchain].foreseen(target),
                requires=rules[target.toolchain].requirements(target),
            ),
        )
        for target in _targets(rules).values()
        if target.name != PORTABLE and target.toolchain in rules
    ]
    return component.model_copy(update={"variants": (*component.variants, *offered)})
