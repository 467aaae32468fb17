"""What a lie is: a change that makes an honest package one that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aotpack import errors
from tests.attacks.forge import Forgery


@dataclass(frozen=True)
class Lie:
    tell: Callable[[Forgery], None]
    error: type[errors.PackageError]
    match: str

    @property
    def name(self) -> str:
        return self.tell.__name__.replace("_", "-").strip("-")


LIES: list[Lie] = []


def refused(
    error: type[errors.PackageError], match: str
) -> Callable[[Callable[[Forgery], None]], Callable[[Forgery], None]]:
    """Note that a package with this lie is refused with `error`, whose text has `match` in it."""

    def note(tell: Callable[[Forgery], None]) -> Callable[[Forgery], None]:
        LIES.append(Lie(tell, error, match))
        return tell

    return note
