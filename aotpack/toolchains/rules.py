"""Toolchains as what judges variants on this computer: with what their EPs have answered before."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aotpack.selection.verdict import Grade, Rules, Verdict

if TYPE_CHECKING:
    from aotpack.machine.profile import Machine
    from aotpack.manifest.values import Variant
    from aotpack.selection.settings import Setting
    from aotpack.toolchains.base import Toolchain
    from aotpack.toolchains.kept_answers import KnownAnswers

__all__ = ["with_known_answers"]


def with_known_answers(
    toolchains: Mapping[str, Toolchain], cache_root: Path, machine: Machine
) -> Mapping[str, Rules]:
    """`toolchains` to judge by on this computer; those that ask in a process keep the answers in a cache.

    Args:
        toolchains: by name.
        cache_root: the folder of the cache.
        machine: this computer.
    """
    return {
        name: _Remembering(each, name, cache_root, machine) if each.ask_in_worker else each
        for name, each in toolchains.items()
    }


class _Remembering:
    """The rules of a toolchain, with the answers of its EP that are known."""

    def __init__(self, toolchain: Toolchain, name: str, cache_root: Path, machine: Machine) -> None:
        self._toolchain = toolchain
        self._name = name
        self._cache_root = cache_root
        self._machine = machine
        self._kept: KnownAnswers | None = None
        self._answers: dict[str, Grade | None] | None = None

    @property
    def ep(self) -> str:
        return self._toolchain.ep

    @property
    def failure(self) -> str | None:
        return self._toolchain.failure

    @property
    def trouble(self) -> str | None:
        return self._toolchain.trouble

    @property
    def package_options(self) -> Mapping[str, Setting]:
        return self._toolchain.package_options

    @property
    def package_config(self) -> Mapping[str, Setting]:
        return self._toolchain.package_config

    def pip_command(self) -> str:
        return self._toolchain.pip_command()

    def looks_at(self, variant: Variant) -> Hashable:
        return self._toolchain.looks_at(variant)

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        return self._toolchain.judge(variant, machine, emulate=emulate)

    def ask(self, ep_string: str, device: str) -> Grade | None:
        if self._kept is None or self._answers is None:
            # Few machines have an EP that is asked so, and none waits for the import that has not.
            from aotpack.toolchains.kept_answers import KnownAnswers

            self._kept = KnownAnswers(self._cache_root, self._name, self._machine)
            self._answers = self._kept.read()
        # A question can have 64 KB, and there is no end of them.
        question = hashlib.sha256(f"{device} {ep_string}".encode()).hexdigest()
        if question not in self._answers:
            said = self._toolchain.ask(ep_string, device)
            self._answers[question] = said
            self._kept.add(question, said)
        return self._answers[question]
