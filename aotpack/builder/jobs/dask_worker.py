"""Declares what a machine has: ``dask worker ADDRESS --preload aotpack.builder.jobs.dask_worker``."""

from __future__ import annotations

from typing import Any

from aotpack.builder.jobs.dask_farm import resource
from aotpack.builder.jobs.remote_task import Offer, describe

__all__ = ["dask_setup"]

#: More than tasks ever run at once: a resource says what a worker has, its threads how much it does.
_PLENTY = 1_000_000


def dask_setup(worker: Any) -> None:
    """Called by Dask when the worker starts."""
    offer = Offer.from_json(describe())
    carried = {resource(name, versions): _PLENTY for name, versions in offer.toolchains.items()}
    # Not by set_resources, which asks the scheduler: that hears of the worker only after this.
    worker.state.total_resources.update(carried)
    worker.state.available_resources.update(carried)
