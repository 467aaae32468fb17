"""What a newer runtime refuses, told apart from what is for another device."""

from __future__ import annotations

from typing import Any

import pytest

from aotpack.machine.profile import Cpu, Ep, Gpu, Machine, Npu, find_machine
from aotpack.manifest.values import Compatibility, Component, Manifest, Requirements, Source, Variant
from aotpack.runtime.doctor import Finding, examine
from aotpack.selection.verdict import Code
from aotpack.targets.catalogue import PORTABLE
from aotpack.toolchains.openvino.string import EP as OPENVINO
from aotpack.toolchains.openvino.string import ISA_CLASSES, string_for
from aotpack.toolchains.qnn.string import EP as QNN
from aotpack.toolchains.qnn.string import string_for as qnn_string
from aotpack.toolchains.tensorrt_rtx.string import EP as RTX
from aotpack.toolchains.tensorrt_rtx.string import string_for as rtx_string

AVX2 = next(known for known in ISA_CLASSES if known.cap == "AVX2")


def variant(toolchain: str, ep: str, text: str | None, **requires: Any) -> Variant:
    return Variant(
        id="some",
        target="some",
        toolchain=toolchain,
        ep=ep,
        device="cpu",
        compatibility=Compatibility(ep_string=text, requires=Requirements(**requires)),
    )


def finding(given: Variant, machine: Machine) -> Finding:
    source = Source(sha256="a" * 64, size=1, opsets={"": 17})
    portable = Variant(
        id="portable", target=PORTABLE, toolchain="ort", ep="CPUExecutionProvider", device="cpu"
    )
    component = Component(name="main", source=source, inputs=(), outputs=(), variants=(given, portable))
    (found,) = examine(Manifest(name="some", components=(component,)), machine)
    return found


def openvino(release: str, vendor: str = "GenuineIntel") -> Machine:
    details = {"openvino": release}
    features = ("avx", "avx2", "sse4_1", "avx_vnni")
    return Machine(
        arch="x86_64",
        cpu=Cpu(vendor=vendor, features=features),
        onnxruntime="1.32.0",
        eps={OPENVINO: Ep(version="1.8.1", details=details)},
    )


INTEL_NPU = Npu(vendor="intel", architecture="4000")


def npu_blob(built_by: str) -> Variant:
    return variant("openvino", OPENVINO, "of a form that is not known").replace(
        device="npu", built_with={"openvino": built_by}
    )


BLOB = variant("openvino", OPENVINO, string_for("2026.4.1", AVX2), arch="x86_64", onnxruntime=">=1.32")


@pytest.mark.parametrize(
    ("given", "machine", "state", "code"),
    [
        # Taken by the runtime, though not by this machine's CPU.
        (BLOB, openvino("2026.4.1"), "fresh", None),
        (BLOB, openvino("2026.4.1", "AuthenticAMD"), "fresh", None),
        (BLOB, openvino("2026.5.0"), "stale", Code.RUNTIME_VERSION),
        (BLOB, openvino("2026.5.0", "AuthenticAMD"), "stale", Code.RUNTIME_VERSION),
        (BLOB, openvino("2026.4.1").replace(onnxruntime="1.31.0"), "stale", Code.ORT_VERSION),
        (BLOB, Machine(onnxruntime="1.32.0", eps={}), "unknown", Code.EP_MISSING),
        (BLOB, Machine(onnxruntime="1.32.0"), "unknown", Code.NOT_IN_PROFILE),
        (variant("openvino", OPENVINO, "junk"), openvino("2026.4.1"), "unknown", Code.STRING_MALFORMED),
        (
            variant("openvino", OPENVINO, '{"ovep_compat_ver":"1.0","ovep_bin_ver":"1.1"}'),
            openvino("2026.4.1"),
            "stale",
            Code.STRING_NOT_APPLICABLE,
        ),
        (
            variant("qnn", QNN, qnn_string(79, 69, 8, "5.51.0")),
            find_machine("snapdragon-x-elite"),
            "fresh",
            None,
        ),
        (
            variant("qnn", QNN, qnn_string(73, 60, 8, "5.52.0")),
            find_machine("snapdragon-x-elite"),
            "stale",
            Code.RUNTIME_VERSION,
        ),
        # What no NPU is there for is not old for that.
        (
            variant("qnn", QNN, qnn_string(73, 60, 8, "5.51.0")),
            Machine(arch="x86_64", npus=(), eps={QNN: Ep(version="2.7.0")}),
            "fresh",
            None,
        ),
        (
            variant("qnn", QNN, qnn_string(73, 60, 8, "5.51.0")),
            Machine(
                npus=(Npu(vendor="qualcomm", architecture="v73", vtcm_mb=8),), eps={QNN: Ep(version="9.9.9")}
            ),
            "unknown",
            Code.NOT_IN_PROFILE,
        ),
        (variant("nobody", "NobodyExecutionProvider", None), Machine(), "unknown", Code.TOOLCHAIN_UNKNOWN),
        # Of a blob for an NPU only the release that built it is known: the same one takes it.
        *(
            (npu_blob("2026.4.1"), openvino(release).replace(npus=npus), state, code)
            for npus, why in (((INTEL_NPU,), Code.STRING_NOT_APPLICABLE), ((), Code.NO_DEVICE))
            for release, state, code in (("2026.4.1", "fresh", None), ("2026.5.0", "unknown", why))
        ),
    ],
)
def test_age_is_the_runtimes_affair_and_not_the_devices(
    given: Variant, machine: Machine, state: str, code: Code | None
) -> None:
    found = finding(given, machine)
    assert (found.state, found.code) == (state, code), found.verdict


def test_a_fresh_one_for_another_device_says_so_in_words_that_are_not_those_of_a_stale_one() -> None:
    here = finding(BLOB, openvino("2026.4.1"))
    assert here.reason.startswith("The runtime takes what built it. It is for another machine: ")
    assert "ISA class" in here.reason
    own = openvino("2026.4.1")
    cpu = own.cpu.replace(features=("avx", "avx2", "sse4_1"))
    assert finding(BLOB, own.replace(cpu=cpu)).reason == "The runtime takes what built it."


def test_an_engine_of_another_release_is_stale_whatever_the_gpu() -> None:
    text = rtx_string("1.7.1.116", ["8.9"])
    gpu = Gpu(vendor="nvidia", compute_capability="8.6", driver="581.15")
    for release, state in (("1.7.1.116", "fresh"), ("1.8.0.1", "stale")):
        eps = {RTX: Ep(version="0.5.0", details={"tensorrt-rtx": release})}
        found = finding(variant("tensorrt-rtx", RTX, text), Machine(gpus=(gpu,), eps=eps))
        assert found.state == state, found.verdict
