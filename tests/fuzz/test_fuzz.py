from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.attacks.forge import honest
from tests.fuzz.reading import read_all, read_either_way

ROOT = Path(__file__).parents[2]

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["..", "raw", "zstd"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.binary(max_size=400))
def test_any_bytes_are_a_package_or_an_error(data: bytes) -> None:
    read_either_way(data)


@settings(deadline=None)
@given(data=st.data())
def test_any_change_of_a_byte_is_an_error_or_none(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    package = bytearray(honest().write(tmp_path_factory.mktemp("fuzz") / "x").read_bytes())
    first = data.draw(st.integers(0, 600) | st.integers(0, len(package) - 1))
    package[first] ^= data.draw(st.integers(1, 255))
    read_all(bytes(package))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_change_of_the_manifest_is_an_error_or_none(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    forged = honest()
    node: Any = forged.manifest
    while True:
        key = data.draw(
            st.sampled_from(sorted(node)) if isinstance(node, dict) else st.integers(0, len(node) - 1)
        )
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(_VALUES)
    forged.text = json.dumps(forged.manifest).encode()
    read_all(forged.write(tmp_path_factory.mktemp("fuzz") / "x").read_bytes())


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it has no wheel for this Python",
)
def test_a_minute_of_fuzzing_finds_nothing() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.fuzz_reader",
        "-max_total_time=60",
        "-timeout=10",
        "-rss_limit_mb=2048",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "DONE" in done.stderr
