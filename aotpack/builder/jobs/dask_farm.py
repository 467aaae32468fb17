"""A Dask cluster as the place where tasks are done.

A worker carries one resource for each toolchain that it has, named after the versions that compile, so that
the scheduler sends each task to a machine with its vendor's tools (`dask_worker` beside this one declares
them). What a worker lacks of a model is sent to it once, and kept in its cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, wait
from typing import Any, cast

from aotpack.builder.jobs.executor_pool import ExecutorPool
from aotpack.builder.jobs.remote_task import RemoteTask, describe, run_remote_task
from aotpack.builder.jobs.supervise import Workers
from aotpack.errors import FarmError, UsageError
from aotpack.extras import require
from aotpack.machine.profile import Machine
from aotpack.version import VERSION

__all__ = ["DaskFarm", "connect", "resource"]

_log = logging.getLogger(__name__)

#: Seconds to find the scheduler, and to leave it.
_PATIENCE = 5
#: Seconds for a worker that died to come back: its nanny takes some three.
_UNTIL_LOST = 10
#: Seconds that the scheduler may have heard nothing of a worker, which tells it twice a second that it lives.
_UNTIL_STOPPED = 60
#: Seconds for a scheduler that is busy to say something again.
_UNTIL_SILENT = 60
#: Seconds for a worker to say what it has: it imports what it needs for that.
_UNTIL_DESCRIBED = 60
_GONE = "the cluster went away"
#: Of a task that is lost with its worker.
_RETRIES = 1


def resource(toolchain: str, versions: Mapping[str, str]) -> str:
    """The name of the resource that a worker with these versions of a toolchain carries."""
    digest = hashlib.sha256(json.dumps(sorted(versions.items())).encode()).hexdigest()
    return f"aotpack-{VERSION}-{toolchain}-{digest[:8]}"


def connect(address: str, workers: Workers, machine: Machine) -> DaskFarm:
    """The cluster with its scheduler at ``dask://HOST:PORT``.

    Args:
        address: of the scheduler.
        workers: start the processes here that check what comes back.
        machine: this one.

    Raises:
        UsageError: the address is of another form.
        ExtraMissing: Dask is not installed.
        FarmError: there is no scheduler, or no worker that can do this build's jobs.
    """
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != "dask" or not host or not port.isascii() or not port.isdigit():
        raise UsageError("is no place for jobs", where=f"--executor {address}", expected="dask://HOST:PORT")
    client = _client(f"tcp://{place}", address)
    try:
        return DaskFarm(client, address, workers, machine)
    except BaseException:
        _within(lambda: client.close(timeout=_PATIENCE), 2 * _PATIENCE)
        raise


def _client(place: str, address: str) -> Any:
    require("farm")
    from distributed import Client

    # Its own timeout does not hold for what accepts the connection and then says nothing. Dask has no type
    # information on it.
    found = _later(lambda: cast("Any", Client)(place, timeout=_PATIENCE, set_as_default=False))
    try:
        return found.result(3 * _PATIENCE)
    except OSError as error:
        # Ours is a timeout as well, and says nothing.
        said = error if found.done() else "a connection, and nothing on it"
        raise FarmError("no scheduler answers", where=address, found=said) from None


def _later(work: Callable[[], Any]) -> Future[Any]:
    """What `work` gives, in a thread that may never end: Dask waits without end for who does not answer."""
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="aotpack-dask", daemon=True).start()
    return found


def _within(work: Callable[[], Any], seconds: float) -> None:
    """Do `work`, whose failure matters to nobody, for at most so long."""
    found = _later(work)
    wait([found], seconds)
    if found.done() and (error := found.exception()) is not None:
        _log.debug("of Dask: %s", error)


def _run_packed(remote_task: bytes, sent: Mapping[str, bytes]) -> object:
    # Dask looks into the values that it sends, and takes some of ours for parts of its graph.
    return run_remote_task(pickle.loads(remote_task), dict(sent))  # noqa: S301 - from our own client


class DaskFarm(ExecutorPool):
    """A cluster.

    Args:
        client: connected to it; closed with the farm.
        address: for errors.
        workers: start the processes here that check what comes back.
        machine: this one.

    Raises:
        FarmError: there is no worker that can do this build's jobs.
    """

    def __init__(self, client: Any, address: str, workers: Workers, machine: Machine) -> None:
        self._client = client
        self._address = address
        #: Since when a toolchain has no worker, and since when the scheduler says nothing.
        self._missing_since: dict[str, float] = {}
        self._silent_since: float | None = None
        #: By a worker's address, when the scheduler last heard of it and when that was told here.
        self._seen: dict[str, tuple[float, float]] = {}
        # When the scheduler goes it prints tracebacks; the rows say it in a sentence.
        self._chatter = logging.getLogger("distributed.client")
        self._level_before = self._chatter.level
        self._chatter.setLevel(logging.CRITICAL)
        super().__init__(client.get_executor(retries=_RETRIES), workers, machine, where=address)

    def close(self) -> None:
        """Disconnect."""
        super().close()
        _within(lambda: self._client.close(timeout=_PATIENCE), 2 * _PATIENCE)
        self._chatter.setLevel(self._level_before)

    def _ask(self) -> list[object]:
        # Each by itself: one without aotpack answers with an error, and one that is stopped not at all.
        try:
            addresses = list(self._identity()["workers"])
        except Exception as error:
            raise FarmError("its scheduler does not answer", where=self._address, found=error) from error
        asked = [_later(functools.partial(self._describe, address)) for address in addresses]
        wait(asked, _UNTIL_DESCRIBED)
        answers: list[object] = []
        for address, future in zip(addresses, asked, strict=True):
            if not future.done():
                answers.append(f"no answer from {address} within {_UNTIL_DESCRIBED} s")
            else:
                failure = future.exception()
                answers.append(f"{address}: {failure}" if failure is not None else future.result())
        return answers

    def _describe(self, address: str) -> object:
        return self._client.run(describe, workers=[address], on_error="return")[address]

    def _start(self, remote_task: RemoteTask, sent: Mapping[str, bytes]) -> Future[Any]:
        toolchain = remote_task.task.toolchain
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
            future: Future[Any] = executor.submit(_run_packed, pickle.dumps(remote_task), dict(sent))
        return future

    def _result(self, inner: Future[Any]) -> object:
        try:
            return inner.result()
        except CancelledError:
            # Dask cancels everything when the scheduler is gone.
            raise FarmError(_GONE, where=self._address) from None

    def _identity(self) -> Any:
        """What the scheduler says of itself and its workers.

        Raises:
            TimeoutError: it does not answer.
        """
        # Not scheduler_info: what it gives is overwritten every two seconds by an answer without workers.
        client = self._client
        return client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=_PATIENCE)

    def _carried(self) -> set[str]:
        """The resources that workers carry of which the scheduler has heard lately."""
        now = time.monotonic()
        carried: set[str] = set()
        for address, worker in self._identity()["workers"].items():
            told = float(worker.get("last_seen", 0.0))
            if self._seen.get(address, (-1.0, now))[0] != told:
                self._seen[address] = (told, now)
            if now - self._seen[address][1] < _UNTIL_STOPPED:
                carried.update(worker["resources"])
        return carried

    def _look(self) -> None:
        """Give up what nobody can do any more: Dask waits for a worker with its resource for ever."""
        super()._look()
        with self._lock:
            running = dict(self._running)
        if not running or self._client.status != "running":
            # When it goes, Dask cancels what runs.
            self._missing_since.clear()
            self._silent_since = None
            return
        now = time.monotonic()
        try:
            carried = self._carried()
        except Exception as error:
            _log.debug("%s does not answer: %s", self._address, error)
            self._missing_since.clear()
            if self._silent_since is None:
                self._silent_since = now
            elif now - self._silent_since > _UNTIL_SILENT:
                self._give_up(running, "the scheduler does not answer any more")
            return
        self._silent_since = None
        for future, task in running.items():
            toolchain = task.toolchain
            if resource(toolchain, self.offered()[toolchain]) in carried:
                self._missing_since.pop(toolchain, None)
            elif now - self._missing_since.setdefault(toolchain, now) > _UNTIL_LOST:
                self._give_up({future: task}, f"the last worker with the toolchain {toolchain} is gone")
