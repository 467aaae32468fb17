"""A Dask cluster as the place where tasks are done.

A worker carries one resource for each toolchain that it has, named after the versions that compile, so that
the scheduler sends each task to a machine with its vendor's tools (``aotpack.builder.dask_worker`` declares
them). What a worker lacks of a model is sent to it once, and kept in its cache.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, cast

from aotpack.builder.elsewhere import Elsewhere, Errand, Offer, describe, run_errand
from aotpack.builder.plan import ingredients_digest
from aotpack.errors import FarmError, ToolchainMissing, UsageError
from aotpack.version import VERSION

__all__ = ["DaskFarm", "connect", "resource"]

#: Seconds to find the scheduler.
_PATIENCE = 10
#: Of a task that is lost with its worker.
_RETRIES = 1


def resource(toolchain: str, versions: Mapping[str, str]) -> str:
    """The name of the resource that a worker with these versions of a toolchain carries."""
    return f"aotpack-{VERSION}-{toolchain}-{ingredients_digest(dict(versions))[:8]}"


def connect(address: str) -> DaskFarm:
    """The cluster with its scheduler at ``dask://HOST:PORT``.

    Raises:
        UsageError: the address is of another form.
        ToolchainMissing: Dask is not installed.
        FarmError: there is no scheduler, or no worker that can do this build's jobs.
    """
    scheme, _, place = address.partition("://")
    if scheme != "dask" or not place:
        raise UsageError("is no place for jobs", where=f"--executor {address}", expected="dask://HOST:PORT")
    try:
        from distributed import Client
    except ImportError:
        raise ToolchainMissing(
            "is not installed", where="distributed", hint="pip install aotpack[farm]"
        ) from None
    try:
        # Dask has no type information on it.
        client: Any = cast("Any", Client)(f"tcp://{place}", timeout=_PATIENCE, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise FarmError("no scheduler answers", where=address, found=error) from None
    try:
        return DaskFarm(client, address)
    except BaseException:
        client.close()
        raise


def _run_packed(errand: bytes, *sent: Mapping[str, bytes]) -> object:
    # Dask looks into the values that it sends, and takes some of ours for parts of its graph.
    return run_errand(pickle.loads(errand), *map(dict, sent))  # noqa: S301 - from our own client


class DaskFarm(Elsewhere):
    """A cluster.

    Args:
        client: connected to it; closed with the farm.
        address: for errors.

    Raises:
        FarmError: there is no worker that can do this build's jobs.
    """

    def __init__(self, client: Any, address: str) -> None:
        self._client = client
        self._address = address
        super().__init__(client.get_executor(retries=_RETRIES))

    def close(self) -> None:
        """Disconnect."""
        self._client.close(timeout=_PATIENCE)

    def _ask(self) -> list[Offer]:
        # As each worker answers: one without aotpack, or with another release of it, answers with an error.
        answers = self._client.run(describe, on_error="return")
        return [answer for answer in answers.values() if isinstance(answer, Offer)]

    def _start(self, errand: Errand, *sent: object) -> Future[Any]:
        toolchain = errand.task.toolchain
        versions = self.offered().get(toolchain)
        if versions is None:
            raise FarmError(f"no worker has the toolchain {toolchain}", where=self._address)
        needed = resource(toolchain, versions)
        carried = {
            name
            for worker in self._client.scheduler_info(n_workers=-1)["workers"].values()
            for name in worker["resources"]
        }
        if needed not in carried:
            raise FarmError(
                f"no worker carries the resource {needed}",
                where=self._address,
                hint="start workers with --preload aotpack.builder.dask_worker",
            )
        executor = self._client.get_executor(retries=_RETRIES, resources={needed: 1}, pure=False)
        future: Future[Any] = executor.submit(_run_packed, pickle.dumps(errand), *sent)
        return future
