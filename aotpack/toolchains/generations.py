"""Names of targets that are one blob for several generations of a vendor's hardware."""

from __future__ import annotations

from collections.abc import Collection

from aotpack.errors import UsageError

__all__ = ["read_generations"]


def read_generations(name: str, text: str, *, prefix: str, known: Collection[str], what: str) -> list[str]:
    """The generations in a text such as ``v73+v75``, without the prefix and in order of their numbers.

    Args:
        name: of the target, for errors.
        text: the generations, joined by ``+``.
        prefix: that each of them has.
        known: all that there are, without it.
        what: they are, in the plural.

    Raises:
        UsageError: there is no such generation, or one occurs twice.
    """
    wanted = [part.removeprefix(prefix) for part in text.split("+")]
    unknown = [part for part in wanted if part not in known]
    if unknown or len(set(wanted)) != len(wanted):
        raise UsageError(
            f"is no set of {what}",
            where=f"target {name}",
            found=f"{prefix}{unknown[0]}" if unknown else "one of them twice",
            expected=", ".join(f"{prefix}{each}" for each in known),
        )
    return sorted(wanted, key=int)
