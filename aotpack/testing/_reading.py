"""What a call reads beside its arguments: files, folders, the environment, this computer, the network."""

from __future__ import annotations

import functools
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

__all__ = ["what_is_read"]

#: By module: functions that ask the system something. `os.stat` and its like raise no audit event.
_FUNCTIONS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (os, ("stat", "lstat", "access", "listdir", "scandir", "readlink", "statvfs", "getcwd", "getenv")),
    (os.path, ("exists", "lexists", "isfile", "isdir", "getsize", "getmtime", "realpath")),
    (platform, ("machine", "node", "processor", "system", "uname", "version", "release")),
)

#: Audit events of what was imported by another name before, or is done by a library in C.
_EVENTS = frozenset(
    {
        "open",
        "os.listdir",
        "os.scandir",
        "os.system",
        "subprocess.Popen",
        "socket.__new__",
        "socket.getaddrinfo",
        "socket.gethostname",
        "ctypes.dlopen",
    }
)

_active = threading.local()


@contextmanager
def what_is_read(allowed: Sequence[Path] = ()) -> Iterator[list[str]]:
    """Give a list, to which all that this thread reads meanwhile is added.

    Args:
        allowed: folders whose files may be read: the data of a package is a part of it, as its code is. What
            an ``import`` reads is left aside, too.
    """
    _install_hook()
    found: list[str] = []
    _active.found, _active.allowed = found, tuple(str(folder.resolve()) + os.sep for folder in allowed)
    try:
        with ExitStack() as stack:
            for module, names in _FUNCTIONS:
                for name in names:
                    if function := getattr(module, name, None):
                        called = f"{module.__name__}.{name}"
                        _replace(stack, module, name, _watched(called, function))
            variables = type(os.environ)
            for name in ("__getitem__", "__iter__", "__len__"):
                method = _watched(f"os.environ.{name}", getattr(variables, name), skip=1)
                _replace(stack, variables, name, method)
            yield found
    finally:
        _active.found = None


def _replace(stack: ExitStack, owner: Any, name: str, function: Callable[..., Any]) -> None:
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, function)


def _watched(called: str, function: Callable[..., Any], skip: int = 0) -> Callable[..., Any]:
    @functools.wraps(function, assigned=())
    def watching(*arguments: Any, **named: Any) -> Any:
        _note(called, *arguments[skip : skip + 1])
        return function(*arguments, **named)

    return watching


def _note(called: str, *arguments: object) -> None:
    found: list[str] | None = getattr(_active, "found", None)
    if found is None:
        return
    # Noting may read as well.
    _active.found = None
    try:
        path = arguments[0] if arguments else None
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(_active.allowed):
            return
        if not _is_importing():
            found.append(f"{called}({', '.join(map(repr, arguments))})")
    finally:
        _active.found = found


def _is_importing() -> bool:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            return True
    return False


@functools.cache
def _install_hook() -> None:
    # A hook cannot be removed; without a list to add to it does nothing.
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event in _EVENTS:
        _note(event, *arguments[:1])
