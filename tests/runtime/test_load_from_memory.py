"""Where no cache can be written, variants are loaded from memory, if their EP takes them so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import aotpack
from aotpack.errors import NothingToLoad
from aotpack.toolchains.ort.toolchain import OrtToolchain

X = np.ones((1, 64), np.float32)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its variants have their weights beside the graph, compressed in the package."""
    folder = tmp_path_factory.mktemp("memory")
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=16)
    aotpack.build(folder / "m.onnx", targets=["ort-cpu"], output=folder / "m.aotpack", name="m")
    return folder / "m.aotpack"


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that cannot be made, for its parent is a file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "file" / "cache"))
    return tmp_path


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_it_computes_the_same(package: Path, target: str, no_cache: Path) -> None:
    policy = aotpack.Policy(variant=target)
    options = ort.SessionOptions()
    session = aotpack.load(package, policy=policy, session_options=options)
    with aotpack.open(package) as opened:
        variant = next(each for each in opened.component().variants if each.target == target)
        assert [file.path for file in variant.files][1:] == ["model.onnx.data"]
        opened.extract(variant.id, no_cache / "out")
    expected = ort.InferenceSession(no_cache / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected.run(None, {"x": X})[0])
    # The caller's options got nothing of the package.
    assert aotpack.load(package, policy=policy, session_options=options) is not None


def test_what_needs_files_is_refused_with_the_reason(
    package: Path, no_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrtToolchain, "loads_from_memory", False)
    with pytest.raises(NothingToLoad, match="AOTPACK_CACHE"):
        aotpack.load(package)
