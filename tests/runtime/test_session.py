"""A session on files: what it is created with, and that nothing falls back in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from aotpack.manifest.values import SessionSettings, Variant
from aotpack.runtime.session import create
from aotpack.toolchains import toolchains
from samples.made_models import cnn


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("session") / "cnn.onnx"
    onnx.save(cnn(layers=2, channels=4, size=8), path)
    return path


def variant(**settings: object) -> Variant:
    return Variant(
        id="v",
        target="ort-cpu",
        toolchain="ort",
        ep="CPUExecutionProvider",
        device="cpu",
        session=SessionSettings.from_builtins(settings),
    )


def test_it_is_a_plain_session_that_runs(model: Path) -> None:
    session = create(variant(), model, toolchains()["ort"])
    assert type(session) is ort.InferenceSession
    (features,) = session.run(None, {"image": np.ones((1, 3, 8, 8), np.float32)})
    assert features.shape == (1, 4)


def test_the_variants_settings_reach_the_session(model: Path) -> None:
    settings = {"config": {"session.disable_model_compile": "1"}, "graph_optimization": "disabled"}
    options = create(variant(**settings), model, toolchains()["ort"]).get_session_options()
    assert options.get_session_config_entry("session.disable_model_compile") == "1"
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    default = create(variant(), model, toolchains()["ort"]).get_session_options()
    assert default.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_the_silent_fallback_is_off(model: Path) -> None:
    session = create(variant(), model, toolchains()["ort"])
    assert session._enable_fallback is False
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        session.run(None, {"image": np.ones((2, 2), np.float32)})


def test_files_that_are_no_model_raise_what_ort_raises(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"junk")
    with pytest.raises(Exception, match=r"INVALID_PROTOBUF|FAIL"):
        create(variant(), tmp_path / "model.onnx", toolchains()["ort"])
