"""onnx's own FlexAttention tests, lowered and run."""

import os
import subprocess
import sys
import warnings

import numpy as np
import onnx
import pytest

from aotpack import flex
from aotpack.flex.capabilities import Lowering
from aotpack.toolchains import toolchains
from aotpack.toolchains.plugin import PluginToolchain
from tests.flex.running import CPU, session
from tests.hardware import EMULATOR


def cases() -> list:
    with warnings.catch_warnings():
        # Collecting them builds the cases of every operator; some overflow on purpose.
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return [
        case for case in found if case.name.startswith("test_flexattention") and "_expanded" not in case.name
    ]


CASES = cases()


def test_all_eleven_are_here() -> None:
    assert len(CASES) == 11


def feeds_of(case, model: onnx.ModelProto) -> tuple[dict[str, np.ndarray], np.ndarray]:
    (data,) = case.data_sets
    inputs, outputs = data
    return dict(zip((value.name for value in model.graph.input), inputs, strict=True)), outputs[0]


@pytest.mark.parametrize("lowering", ["function", "dense", "block-sparse", None])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_on_ort_cpu(case, lowering: Lowering | None) -> None:
    feeds, want = feeds_of(case, case.model)
    result, _ = flex.lower(case.model, CPU, options=flex.Options(lowering=lowering))
    onnx.checker.check_model(result, full_check=True)
    (got,) = session(result).run(None, feeds)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=case.rtol, atol=max(case.atol, 1e-6))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_our_reference(case) -> None:
    feeds, want = feeds_of(case, case.model)
    (node,) = flex.read(case.model)
    q, k, v = (feeds[name] for name in node.inputs)
    got = flex.reference(node, q, k, v, opset=26)
    np.testing.assert_allclose(got, want, rtol=case.rtol, atol=max(case.atol, 1e-6))


@pytest.fixture(scope="module")
def device():
    """The CPU device of a plugin EP whose compiler takes whole graphs."""
    toolchain = toolchains()["openvino"]
    if not isinstance(toolchain, PluginToolchain) or toolchain.version() is None:
        pytest.skip("OpenVINO's EP is not installed")
    if not (devices := toolchain.devices()):
        pytest.skip("OpenVINO's EP has no device here")
    return devices[0]


@pytest.mark.parametrize("lowering", ["dense", "block-sparse"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_on_openvino(case, lowering: Lowering, device) -> None:
    import json

    import onnxruntime as ort

    feeds, want = feeds_of(case, case.model)
    result, _ = flex.lower(case.model, flex.Capabilities(), options=flex.Options(lowering=lowering))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Nothing may stay on ONNX Runtime's own kernels.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_provider_for_devices(
        [device], {"load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "f32"}})}
    )
    own = ort.InferenceSession(result.SerializeToString(), options, enable_fallback=0)
    own.disable_fallback()
    (got,) = own.run(None, feeds)
    np.testing.assert_allclose(got, want, rtol=max(case.rtol, 2e-3), atol=1e-5)


@pytest.mark.skipif(not EMULATOR, reason="the CPU is Intel's, or no QEMU is here")
def test_on_openvino_in_an_emulator() -> None:
    assert EMULATOR is not None
    if toolchains()["openvino"].version() is None:
        pytest.skip("OpenVINO's EP is not installed")
    # In numbers QEMU 7.2 errs where OpenVINO uses AVX2, so it gets SSE.
    ran = subprocess.run(
        [
            *EMULATOR,
            sys.executable,
            "-m",
            "pytest",
            __file__,
            "-q",
            "-k",
            "test_on_openvino and block-sparse",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41"},
        check=False,
    )
    assert "11 passed" in ran.stdout, ran.stdout + ran.stderr
