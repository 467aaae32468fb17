"""``aotpack cache list|prune|verify``.

::

    aotpack cache list
    aotpack cache prune --limit 2G
    aotpack cache verify
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.options import AsJson
from aotpack.common.sizes import parse_size

if TYPE_CHECKING:
    from aotpack.cache.variants import Cache, CacheEntry

__all__ = ["cache"]

#: The group of verbs.
cache = typer.Typer(
    help="List, prune or verify the local cache of loaded variants.\n\n"
    "AOTPACK_CACHE is its folder and AOTPACK_CACHE_LIMIT, such as 20G, how much it may hold.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@cache.command("list")
def _list(as_json: AsJson = False) -> None:
    """List what it holds, the longest unused first."""
    from aotpack.cache.variants import Cache

    opened = Cache()
    _show(opened, opened.entries(), "in", as_json)


@cache.command()
def prune(
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Such as 2G; by default the cache's own limit.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove the longest unused down to the limit."""
    from aotpack.cache.variants import Cache

    opened = Cache()
    removed = opened.prune(None if limit is None else parse_size(limit, "--limit"))
    _show(opened, removed, "removed from", as_json)


@cache.command()
def verify(as_json: AsJson = False) -> None:
    """Check every byte and remove what is damaged.

    It is put right from its package when it is next loaded.
    """
    from aotpack.cache.variants import Cache

    opened = Cache()
    _show(opened, opened.verify(), "damaged and removed from", as_json)


def _show(opened: Cache, entries: Sequence[CacheEntry], what: str, as_json: bool) -> None:
    from aotpack.documents.verbs import CacheDocument, CacheEntryDocument

    if as_json:
        output.print_json(
            CacheDocument(
                root=str(opened.root),
                size=opened.size(),
                limit=opened.limit,
                entries=tuple(CacheEntryDocument.of(entry) for entry in entries),
            )
        )
        return
    if entries:
        output.table(
            ["package", "variant", "size", "last used"],
            [
                [
                    entry.package,
                    f"{entry.component}/{entry.variant}",
                    output.size(entry.size),
                    f"{datetime.datetime.fromtimestamp(entry.used):%Y-%m-%d %H:%M}",
                ]
                for entry in entries
            ],
            right=["size"],
        )
    output.print_text(
        f"{len(entries)} {what} {opened.root}, which holds {output.size(opened.size())} "
        f"of at most {output.size(opened.limit)}"
    )
