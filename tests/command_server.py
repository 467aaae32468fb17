"""A process that has imported the command line and forks itself for each command.

Imports are the most of what most commands take. A command that is run so is in a process of its own as ever,
with its own environment, folder and output. Only what a process does before `main` is left out, so that
commands whose interpreter or libraries start in another way are started anew (`forks_alike`).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pkgutil
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

__all__ = ["CommandServer", "forks_alike"]

#: Beginnings of the names of variables that the interpreter and libraries read when they start.
_READ_EARLY = (
    "COMP_",
    "LANG",
    "LC_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "OMP_",
    "OPENBLAS_",
    "PYTHON",
    "_AOTPACK",
)

#: What commands import when they are called, beside all of aotpack.
_IMPORTED = (
    "numpy",
    "onnx",
    "onnxruntime",
    "filelock",
    "platformdirs",
    "rich.console",
    "rich.progress",
    "rich.table",
)

#: What is sent at once, and the two descriptors beside it.
_MAX_REQUEST = 1 << 20
_LENGTH = struct.Struct("<i")


def forks_alike(environment: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether a process with one environment starts as one with the other does, folders of modules aside."""
    return all(
        environment.get(name) == other.get(name)
        for name in {*environment, *other}
        if name.startswith(_READ_EARLY) and name != "PYTHONPATH"
    )


class CommandServer:
    """The near side.

    Args:
        environment: of the server.
        root: the folder that it starts in.
    """

    def __init__(self, environment: Mapping[str, str], root: Path) -> None:
        self.environment = dict(environment)
        self._folder = tempfile.TemporaryDirectory(prefix="aotpack-commands-")
        self._address = str(Path(self._folder.name) / "socket")
        # Ends with its standard input: with this process.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.command_server", self._address],
            env=self.environment,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the server of commands has not started"

    def close(self) -> None:
        """End it. Commands that still run go on."""
        self._process.communicate()
        self._folder.cleanup()

    def run(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        cwd: Path | None,
        timeout: float,
        path: Sequence[Path] = (),
    ) -> tuple[int, bytes, bytes]:
        """Run ``aotpack *arguments``: exit status, standard output, standard error.

        Args:
            arguments: of the command.
            environment: all of it.
            cwd: the folder to run it in; None: this process's.
            timeout: in seconds.
            path: folders to import from before all others.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds, and was killed.
        """
        added = [str(each) for each in path]
        request = json.dumps([arguments, dict(environment), str(cwd or Path.cwd()), added]).encode()
        pipes = [os.pipe(), os.pipe()]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._address)
            connection.sendall(_LENGTH.pack(len(request)))
            socket.send_fds(connection, [b"."], [write for _, write in pipes])
            connection.sendall(request)
            for _, write in pipes:
                os.close(write)
            (pid,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
            try:
                out, err = _read([read for read, _ in pipes], timeout)
                connection.settimeout(timeout)
                (status,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(["aotpack", *arguments], timeout) from None
        return status, out, err


def _read(descriptors: list[int], timeout: float) -> list[bytes]:
    """All that comes out of pipes until they are closed."""
    found = {each: bytearray() for each in descriptors}
    end = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for each in descriptors:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if block := os.read(key.fd, 65536):
                    found[key.fd] += block
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [bytes(each) for each in found.values()]


def _exactly(connection: socket.socket, size: int) -> bytes:
    block = b""
    while len(block) < size:
        more = connection.recv(size - len(block))
        assert more, "the server of commands has died"
        block += more
    return block


def _serve(address: str) -> None:
    """Fork a process for each connection, until the standard input ends."""
    import aotpack

    ours = [each.name for each in pkgutil.walk_packages(aotpack.__path__, "aotpack.")]
    for module in (*_IMPORTED, *ours):
        # Some are for an extra that need not be there.
        with contextlib.suppress(ImportError):
            import_module(module)
    # As `python -m aotpack` has it.
    del sys.path[0]
    # Those of third parties are found in the folders of a command.
    assert not sys.modules["aotpack.toolchains"]._made
    assert threading.active_count() == 1
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if 0 in ready:
                return
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    _watch(connection)


def _watch(connection: socket.socket) -> NoReturn:
    """Fork the command, and tell its process and how it ended."""
    (size,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    assert size <= _MAX_REQUEST
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
    arguments, environment, folder, path = json.loads(_exactly(connection, size))
    pid = os.fork()
    if pid == 0:
        connection.close()
        sys.path[:0] = path
        _be_the_command(arguments, environment, folder, descriptors)
    for each in descriptors:
        os.close(each)
    connection.sendall(_LENGTH.pack(pid))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(_LENGTH.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _be_the_command(
    arguments: list[str], environment: Mapping[str, str], folder: str, descriptors: list[int]
) -> NoReturn:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number, each in enumerate([null, *descriptors]):
            os.dup2(each, number)
        for each in (null, *descriptors):
            os.close(each)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = ["aotpack", *arguments]
        from aotpack.__main__ import main

        main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve(sys.argv[1])
