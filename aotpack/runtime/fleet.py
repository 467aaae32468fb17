"""A package against many machines: what each gets, what nobody gets, and which target would help most."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aotpack.errors import ProfileError, ToolchainError
from aotpack.machine.profile import Machine, find_machine, known
from aotpack.manifest.values import Compatibility, Component, Variant
from aotpack.selection.policy import Policy
from aotpack.selection.select import Candidate, Selection, select
from aotpack.targets.catalogue import PORTABLE, Target, catalogue
from aotpack.toolchains import toolchains
from aotpack.toolchains.base import Toolchain

__all__ = ["Coverage", "Help", "cover", "machines_of"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Help:
    """A target that the package lacks, and the machines that would get it if it were added."""

    target: Target
    #: With those of the targets before it in `Coverage.helpful` added, too.
    machines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """One component against a fleet."""

    component: Component
    #: By machine, in the order they were given.
    selections: Mapping[str, Selection]
    #: Whatever would give most machines something better, and what would do so once that is added, until
    #: nothing does.
    helpful: tuple[Help, ...]
    #: Toolchains whose EP some machine has, and whose targets could not be looked at: they are not installed.
    not_considered: tuple[str, ...] = ()

    def gets(self, machine: str) -> Candidate | None:
        """What a machine gets; a last resort, of which nobody can say whether it fits, is nothing."""
        selection = self.selections[machine]
        return None if selection.last_resort else selection.chosen

    @property
    def unused(self) -> tuple[str, ...]:
        """Ids of the variants that no machine gets."""
        taken = {each.id for each in map(self.gets, self.selections) if each is not None}
        return tuple(variant.id for variant in self.component.variants if variant.id not in taken)

    @property
    def portable_only(self) -> tuple[str, ...]:
        """Machines that fall back to the portable variant."""
        return tuple(name for name in self.selections if (each := self.gets(name)) and each.portable)

    @property
    def without(self) -> tuple[str, ...]:
        """Machines that get nothing."""
        return tuple(name for name, item in self.selections.items() if item.chosen is None)

    @property
    def unsure(self) -> tuple[str, ...]:
        """Machines of which nobody can say whether anything fits them."""
        return tuple(name for name, item in self.selections.items() if item.last_resort)


def machines_of(texts: Sequence[str]) -> dict[str, Machine]:
    """The machines of names, profiles and folders of profiles; all that are `known` if there are none.

    Raises:
        ProfileError: a folder holds no profile, or a file is none.
        UnknownName: a name is not known.
    """
    found: list[tuple[str, Machine]] = []
    for text in texts or known():
        folder = Path(text)
        if folder.is_dir():
            paths = sorted(folder.glob("*.json"))
            if not paths:
                raise ProfileError("holds no machine profile", where=folder, expected="files named *.json")
            found += [(path.stem, find_machine(str(path))) for path in paths]
        else:
            found.append((Path(text).stem if folder.suffix == ".json" else text, find_machine(text)))
    machines: dict[str, Machine] = {}
    for name, machine in found:
        if machines.setdefault(name, machine) != machine:
            raise ProfileError("two machines have this name", where=name, hint="rename one of the files")
    return machines


def cover(component: Component, machines: Mapping[str, Machine], policy: Policy | None = None) -> Coverage:
    """What each of `machines` gets of `component` under a policy; nothing is asked of EPs here.

    Libraries of custom operators are no part of a machine: it counts as having them.
    """
    rules = toolchains()
    selections = {
        name: select(component, machine, rules, here=False, policy=policy, custom_ops=True)
        for name, machine in machines.items()
    }
    offered = _with_every_target(component, rules)
    wishes = {
        name: _better(select(offered, machine, rules, here=False, policy=policy, custom_ops=True))
        for name, machine in machines.items()
    }
    return Coverage(component, selections, _in_turn(wishes, _targets(rules)), _missing(rules, machines))


def _missing(rules: Mapping[str, Toolchain], machines: Mapping[str, Machine]) -> tuple[str, ...]:
    wanted = {ep for machine in machines.values() for ep in machine.eps or ()}
    foreseen = {
        target.toolchain
        for target in _targets(rules).values()
        if target.toolchain in rules and rules[target.toolchain].foreseen(target) is not None
    }
    return tuple(
        name
        for name, each in rules.items()
        if each.ep in wanted and each.failure is None and each.version() is None and name not in foreseen
    )


def _better(selection: Selection) -> list[str]:
    """Targets that a machine would take before all that it has, best first."""
    if selection.last_resort:
        return []
    better = itertools.takewhile(lambda each: each.id.startswith(_OFFERED), selection.accepted)
    return [each.variant.target for each in better]


def _in_turn(wishes: Mapping[str, Sequence[str]], targets: Mapping[str, Target]) -> tuple[Help, ...]:
    """One target after the other, each the one that most machines wish for when they have those before it."""
    left = dict(wishes)
    chosen: list[Help] = []
    while any(left.values()):
        places: dict[str, list[int]] = {}
        for wished in left.values():
            for place, name in enumerate(wished):
                places.setdefault(name, []).append(place)
        # Of those that equally many wish for the one that they wish for most, or else the catalogue's first.
        ordered = (name for name in targets if name in places)
        best = min(ordered, key=lambda name: (-len(places[name]), sum(places[name])))
        chosen.append(Help(targets[best], tuple(name for name, wished in left.items() if best in wished)))
        left = {
            name: wished[: wished.index(best)] if best in wished else wished for name, wished in left.items()
        }
    return tuple(chosen)


#: No packaged variant's id starts so.
_OFFERED = "?"


def _targets(rules: Mapping[str, Toolchain]) -> dict[str, Target]:
    return catalogue(target for toolchain in rules.values() for target in toolchain.targets())


def _with_every_target(component: Component, rules: Mapping[str, Toolchain]) -> Component:
    """`component`, and behind what it has the variants that the installed toolchains could add to it."""
    offered: list[Variant] = []
    for target in _targets(rules).values():
        if target.name == PORTABLE or target.toolchain not in rules:
            continue
        toolchain = rules[target.toolchain]
        try:
            needed = Compatibility(
                ep_string=toolchain.foreseen(target), requires=toolchain.requirements(target)
            )
        except ToolchainError as error:
            # It cannot say what its variants would need, so nobody can say whom they would help.
            _log.debug("target %s is not considered: %s", target.name, error)
            continue
        offered.append(
            Variant(
                id=f"{_OFFERED}{target.name}",
                target=target.name,
                toolchain=target.toolchain,
                ep=target.ep,
                device=target.device,
                specificity=target.specificity,
                compatibility=needed,
            )
        )
    return component.replace(variants=(*component.variants, *offered))
