"""A Dask cluster as the place where tasks are done.

A worker carries one resource for each toolchain that it has, named after the versions that compile, so that
the scheduler sends each task to a machine with its vendor's tools (`dask_worker` beside this one declares
them). What a worker lacks of a model is sent to it once, and kept in its cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, cast

from aotpack.builder.jobs.elsewhere import Elsewhere
from aotpack.builder.jobs.errand import Errand, describe, run_errand
from aotpack.errors import FarmError, ToolchainMissing, UsageError
from aotpack.version import VERSION

__all__ = ["DaskFarm", "connect", "resource"]

_log = logging.getLogger(__name__)

#: Seconds to find the scheduler, and to leave it.
_PATIENCE = 5
#: Seconds for a worker that died to come back: its nanny takes some three.
_UNTIL_LOST = 10
#: Seconds between two looks at which workers there are.
_INTERVAL = 1
_GONE = "the cluster went away"
#: Of a task that is lost with its worker.
_RETRIES = 1


def resource(toolchain: str, versions: Mapping[str, str]) -> str:
    """The name of the resource that a worker with these versions of a toolchain carries."""
    digest = hashlib.sha256(json.dumps(sorted(versions.items())).encode()).hexdigest()
    return f"aotpack-{VERSION}-{toolchain}-{digest[:8]}"


def connect(address: str) -> DaskFarm:
    """The cluster with its scheduler at ``dask://HOST:PORT``.

    Raises:
        UsageError: the address is of another form.
        ToolchainMissing: Dask is not installed.
        FarmError: there is no scheduler, or no worker that can do this build's jobs.
    """
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "dask" or not host or not port.isascii() or not port.isdigit():
        raise UsageError("is no place for jobs", where=f"--executor {address}", expected="dask://HOST:PORT")
    client = _client(f"tcp://{place}", address)
    try:
        return DaskFarm(client, address)
    except BaseException:
        client.close()
        raise


def _client(place: str, address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ToolchainMissing(
            "is not installed", where="distributed", hint="pip install aotpack[farm]"
        ) from None
    found: Future[Any] = Future()

    def connect() -> None:
        try:
            # Dask has no type information on it.
            found.set_result(cast("Any", Client)(place, timeout=_PATIENCE, set_as_default=False))
        except BaseException as error:
            found.set_exception(error)

    # Its own timeout does not hold for what accepts the connection and then says nothing.
    threading.Thread(target=connect, name="aotpack-connect", daemon=True).start()
    try:
        return found.result(3 * _PATIENCE)
    except OSError as error:
        # Ours is a timeout as well, and says nothing.
        said = error if found.done() else "a connection, and nothing on it"
        raise FarmError("no scheduler answers", where=address, found=said) from None


def _run_packed(errand: bytes, sent: Mapping[str, bytes]) -> object:
    # Dask looks into the values that it sends, and takes some of ours for parts of its graph.
    return run_errand(pickle.loads(errand), dict(sent))  # noqa: S301 - from our own client


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
        #: Why what runs was given up.
        self._given_up: dict[Future[Any], str] = {}
        self._closed = threading.Event()
        # When the scheduler goes it prints tracebacks; the rows say it in a sentence.
        self._chatter = logging.getLogger("distributed.client")
        self._level_before = self._chatter.level
        self._chatter.setLevel(logging.CRITICAL)
        super().__init__(client.get_executor(retries=_RETRIES), where=address)
        self._watching = threading.Thread(target=self._watch, name="aotpack-farm", daemon=True)
        self._watching.start()

    def close(self) -> None:
        """Disconnect."""
        self._closed.set()
        self._watching.join(_PATIENCE)
        super().close()
        self._client.close(timeout=_PATIENCE)
        self._chatter.setLevel(self._level_before)

    def _ask(self) -> list[object]:
        # As each worker answers: one without aotpack answers with an error.
        try:
            return list(self._client.run(describe, on_error="return").values())
        except Exception as error:
            raise FarmError("its workers do not answer", where=self._address, found=error) from error

    def _start(self, errand: Errand, sent: Mapping[str, bytes]) -> Future[Any]:
        toolchain = errand.task.toolchain
        import dask.config

        versions = self.offered().get(toolchain)
        if versions is None:
            raise FarmError(f"no worker can compile with the toolchain {toolchain}", where=self._address)
        needed = resource(toolchain, versions)
        if self._client.status != "running":
            raise FarmError(_GONE, where=self._address)
        if needed not in self._carried():
            raise FarmError(
                f"no worker carries the resource {needed}",
                where=self._address,
                hint="start workers with --preload aotpack.builder.jobs.dask_worker",
            )
        executor = self._client.get_executor(retries=_RETRIES, resources={needed: 1}, pure=False)
        # Dask warns of a model in the arguments. It goes once; scattered, it would be lost with its worker.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            future: Future[Any] = executor.submit(_run_packed, pickle.dumps(errand), dict(sent))
        return future

    def _result(self, inner: Future[Any]) -> object:
        try:
            return inner.result()
        except CancelledError:
            # Dask cancels everything when the scheduler is gone.
            raise FarmError(self._given_up.get(inner, _GONE), where=self._address) from None

    def _carried(self) -> set[str]:
        """The resources that the workers carry."""
        # Not scheduler_info: what it gives is overwritten every two seconds by an answer without workers.
        identity = self._client.sync(self._client.scheduler.identity, n_workers=-1)
        workers = identity["workers"].values()
        return {name for worker in workers for name in worker["resources"]}

    def _watch(self) -> None:
        """Give up what nobody can do any more: Dask waits for a worker with its resource for ever."""
        missing_since: dict[str, float] = {}
        while not self._closed.wait(_INTERVAL):
            with self._lock:
                running = dict(self._running)
            try:
                carried = self._carried() if running and self._client.status == "running" else None
            except Exception as error:
                # The scheduler is going: what runs is cancelled by Dask.
                _log.debug("%s does not answer: %s", self._address, error)
                carried = None
            if carried is None:
                missing_since.clear()
                continue
            now = time.monotonic()
            for future, toolchain in running.items():
                if resource(toolchain, self.offered()[toolchain]) in carried:
                    missing_since.pop(toolchain, None)
                elif now - missing_since.setdefault(toolchain, now) > _UNTIL_LOST:
                    self._given_up[future] = f"the last worker with the toolchain {toolchain} is gone"
                    future.cancel()
