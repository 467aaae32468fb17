"""What tests of all rooms share: real models, and a cache that is not the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from samples.real_models import fetch


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """``real_model("magika")`` is the path of that model; the names are in tests/models.toml."""
    return fetch


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that packages are materialised into during the tests, in subprocesses as well."""
    folder = tmp_path_factory.mktemp("aotpack-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AOTPACK_CACHE", str(folder))
        yield folder
