"""Declares the toolchains of a machine: ``dask worker ADDRESS --preload aotpack.builder.dask_worker``."""

from __future__ import annotations

from typing import Any

from aotpack.builder.dask_farm import resource
from aotpack.builder.elsewhere import describe

__all__ = ["dask_setup"]

#: More than tasks ever run at once: a resource says what a worker has, its threads how much it does.
_PLENTY = 1_000_000


async def dask_setup(worker: Any) -> None:
    """Called by Dask when the worker starts."""
    offer = describe()
    await worker.set_resources(
        **{resource(name, versions): _PLENTY for name, versions in offer.toolchains.items()}
    )
