"""A real Dask scheduler and real workers, each in a process, a folder and a cache of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.command_line import ROOT, environment

__all__ = ["Cluster", "cluster", "free_port"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """A scheduler, and the workers that were started for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.address = f"dask://127.0.0.1:{self._port}"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--no-show", "--no-dashboard"]
        # A task that takes its worker down is given to one more.
        env = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
        self.scheduler = self._start(sys.executable, "scheduler", options, env, ROOT)
        self._until("scheduler", "Scheduler at:")

    def add(
        self,
        name: str,
        *,
        python: Path | str = sys.executable,
        root: Path = ROOT,
        path: tuple[Path, ...] = (),
        preload: bool = True,
    ) -> None:
        """Start a worker; `wait` until it can be given tasks.

        Args:
            name: of the worker.
            python: that runs it, with what is installed there.
            root: of the aotpack that it imports.
            path: of other modules that it can import.
            preload: let it declare its toolchains.
        """
        options = [f"tcp://127.0.0.1:{self._port}", "--nthreads", "1", "--host", "127.0.0.1", "--name", name]
        options += ["--no-nanny", "--no-dashboard"]
        if preload:
            options += ["--preload", "aotpack.builder.jobs.dask_worker"]
        env = {"AOTPACK_CACHE": str(self.cache(name)), "PYTHONPATH": os.pathsep.join(map(str, (*path, root)))}
        self.workers[name] = self._start(python, name, options, env, root)

    def wait(self) -> None:
        """Until all workers can be given tasks."""
        for name in self.workers:
            self._until(name, "Starting established connection")

    def cache(self, name: str) -> Path:
        """The cache of a worker."""
        return self._folder / f"{name}-cache"

    def said(self, name: str) -> str:
        """What a process has printed."""
        return (self._folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace")

    def kill(self, name: str) -> None:
        """Take a worker's machine down."""
        self.workers[name].kill()
        self.workers[name].wait()

    def close(self) -> None:
        for process in (*self.workers.values(), self.scheduler):
            process.kill()
            process.wait()

    def _start(
        self, python: Path | str, name: str, options: list[str], env: Mapping[str, str], root: Path
    ) -> subprocess.Popen[bytes]:
        kind = "scheduler" if name == "scheduler" else "worker"
        command = [str(python), "-m", f"distributed.cli.dask_{kind}", *options]
        with (self._folder / f"{name}.txt").open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                env=environment({**env}),
                stdin=subprocess.DEVNULL,
            )

    def _until(self, name: str, words: str) -> None:
        process = self.workers.get(name) or self.scheduler
        for _ in range(600):
            if words in self.said(name):
                return
            assert process.poll() is None, self.said(name)[-2000:]
            time.sleep(0.05)
        raise AssertionError(f"{name} is not ready: {self.said(name)[-2000:]}")


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster in an empty folder, gone afterwards."""
    made = Cluster(folder)
    try:
        yield made
    finally:
        made.close()
