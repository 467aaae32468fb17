"""Find out, in a worker, whether libraries of custom operators can be loaded, before anything needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aotpack.builder.jobs.resources import default_limits
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.jobs.worker import RegisterRequest
from aotpack.builder.spec import Limits
from aotpack.errors import UsageError
from aotpack.files.scratch import scratch_folder

__all__ = ["check_loadable"]

#: For a library to be loaded and to register its operators, in seconds.
_SECONDS = 120.0


def check_loadable(libraries: Sequence[Path], workers: Workers) -> None:
    """Nothing, if ONNX Runtime can register each of the libraries, and all of them together.

    Raises:
        UsageError: it cannot; or a library crashed or hung when it was loaded.
        BuildStopped: nobody wants it any more.
    """
    if not libraries:
        return
    request = RegisterRequest(custom_ops=tuple(map(str, libraries)))
    with scratch_folder("ops") as scratch:
        limits = default_limits(Limits(seconds=_SECONDS))
        outcome = workers.run(request, scratch, environment={}, limits=limits)
    if outcome.failure is not None:
        where = "custom_ops: "
        said = outcome.failure
        raise UsageError(said if said.startswith(where) else f"{where}loading them failed: {said}")
