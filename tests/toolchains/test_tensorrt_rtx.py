"""Engines for RTX GPUs, made here and checked for what can be known of them without a GPU. None has run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
import pytest

from aotpack.builder.build import build
from aotpack.builder.report import BuildReport
from aotpack.container.reader import PackageReader
from aotpack.runtime.events import Event, EventCode
from aotpack.runtime.package import open_package
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from aotpack.toolchains.tensorrt_rtx.string import EP, EngineHeader
from aotpack.toolchains.tensorrt_rtx.toolchain import why_refused
from tests.command_line import aotpack
from tests.hardware import needs

pytestmark = needs("tensorrt-rtx-sm89")

SETS = {
    "tensorrt-rtx-sm86": ("8.6",),
    "tensorrt-rtx-sm89": ("8.9",),
    "tensorrt-rtx-sm120": ("12.0",),
    "tensorrt-rtx-sm121": ("12.1",),
    "tensorrt-rtx-sm86+sm120": ("8.6", "12.0"),
    "tensorrt-rtx": ("8.6", "8.9", "12.0", "12.1"),
}


@pytest.fixture(scope="module")
def package(real_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rtx") / "vad.aotpack"
    # In another order than the engine's, which is that of the generations.
    targets = [name.replace("sm86+sm120", "sm120+sm86") for name in SETS]
    done = aotpack(
        *("build", real_model("silero_vad_16k_sequence"), "-o", path, "--shape", "input=1,576", "--json"),
        *(f"--target={target}" for target in targets),
    )
    assert done.status == 0, done.err
    rows: list[dict[str, Any]] = done.document("build-report")["rows"]
    for row in rows[:-1]:
        assert row["numerics"] is None
        assert (
            "there is no NVIDIA GPU; the engine was checked for its structure and has never run"
            in row["reason"]
        )
        assert row["coverage"]["partitions"] == 1
        assert row["coverage"]["compiled"] == row["coverage"]["nodes"] > 0
    return path


@pytest.mark.parametrize("target", SETS)
def test_the_string_is_the_front_of_an_engine_for_what_was_asked(
    package: Path, target: str, tmp_path: Path
) -> None:
    with open_package(package) as opened:
        (variant,) = [each for each in opened.manifest.variants() if each.target == target]
        model, engine = opened.extract(variant.id, tmp_path)
    blob = engine.read_bytes()
    text = variant.compatibility.ep_string
    # As the EP writes it: the engine's first 64 bytes in hex.
    assert text == blob[:64].hex()
    release = metadata.version("tensorrt-rtx-cu12")
    header = EngineHeader.parse(text)
    assert header == EngineHeader(2, header.length if header else 0, release, SETS[target])
    assert header is not None
    assert 0 < header.length <= len(blob)
    # All that the EP writes and nothing else (NVIDIA/TensorRT-RTX-EP-ABI, src/onnx_ctx_model_helper.cc).
    loaded = onnx.load(model)
    (node,) = loaded.graph.node
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    assert (node.domain, node.op_type) == ("com.microsoft", "EPContext")
    assert attributes == {
        "main_context": 0,
        "embed_mode": 0,
        "ep_cache_context": engine.name.encode(),
        "source": EP.encode(),
        "hardware_architecture": b"80+",
        "ep_sdk_version": b"1.0",
        "ep_context_op_domain": b"com.microsoft",
        "partition_name": node.name.encode(),
        "onnx_model_filename": b"prepared.onnx",
    }
    assert node.name == f"{EP}_{hashlib.sha256(blob).hexdigest()[:16]}_0"
    assert {each.key: each.value for each in loaded.metadata_props} == {f"ep_compatibility_info.{EP}": text}
    assert [value.name for value in loaded.graph.input] == ["input", "h", "c"]


def test_one_engine_for_all_is_little_more_than_one_for_a_single_generation(package: Path) -> None:
    with PackageReader.open(package) as reader:
        sizes = {
            variant.target: sum(file.size for file in variant.files) for variant in reader.manifest.variants()
        }
    assert sizes["tensorrt-rtx"] < 1.2 * sizes["tensorrt-rtx-sm89"]


@pytest.mark.parametrize(("machine", "own"), [("rtx-30", "sm86"), ("rtx-40", "sm89"), ("rtx-50", "sm120")])
def test_a_gpu_gets_the_engine_for_it_alone_first(package: Path, machine: str, own: str) -> None:
    document = aotpack("select", package, "--machine", machine, "--json").document("selection")
    accepted = [each["target"] for each in document["candidates"] if each["accepted"]]
    assert accepted[0] == f"tensorrt-rtx-{own}"
    sets = [target for target, capabilities in SETS.items() if len(capabilities) > 1]
    fitting = [
        target for target in sets if target == "tensorrt-rtx" or own in target.split("-")[-1].split("+")
    ]
    assert sorted(accepted) == sorted([f"tensorrt-rtx-{own}", *fitting, "portable"])


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("tensorrt-rtx-sm86+sm75", "is no set of compute capabilities; found sm75; expected sm86, sm89"),
        ("tensorrt-rtx-sm86+sm86", "is no set of compute capabilities; found one of them twice"),
        ("tensorrt-rtx-sm80", "did you mean tensorrt-rtx-sm8"),
    ],
)
def test_what_the_ep_does_not_load_on_is_no_target(
    small_model: Path, tmp_path: Path, target: str, says: str
) -> None:
    done = aotpack("build", small_model, "-o", tmp_path / "x.aotpack", "-t", target)
    assert done.status == 2
    assert says in done.error


def test_an_engine_that_cannot_run_here_is_not_compared_and_the_portable_model_runs_for_itself(
    small_model: Path, tmp_path: Path
) -> None:
    def built(*, check: bool) -> tuple[BuildReport, list[Event]]:
        events: list[Event] = []
        target, output = "tensorrt-rtx-sm89", tmp_path / "x.aotpack"
        report = build(
            small_model, targets=[target], output=output, reuse=False, check=check, on_event=events.append
        )
        return report, [event for event in events if event.code is EventCode.REFERENCE]

    report, references = built(check=True)
    assert references
    engine, portable = report.rows
    assert portable.numerics is not None
    assert portable.numerics.ran_on == "host"
    if toolchains()["tensorrt-rtx"].how_to_run(find("tensorrt-rtx-sm89"), probe()).how is None:
        assert engine.numerics is None or engine.numerics.error is None
    assert built(check=False)[1] == []


def test_branches_that_fixed_shapes_decide_are_no_hindrance(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """The builder's parser refuses them; the EP gets its graphs from ORT, which has decided them by then."""
    shapes = ("--shape", "batch=1", "--shape", "sequence=576")
    done = aotpack(
        *("build", real_model("silero_vad_half"), "-o", tmp_path / "x.aotpack", "-t", "tensorrt-rtx-sm89"),
        *(*shapes, "--json"),
    )
    assert done.status == 0, done.err
    row = done.document("build-report")["rows"][0]
    assert row["state"] == "built"
    assert row["coverage"]["compiled"] == row["coverage"]["nodes"] > 0


def test_what_the_builder_refuses_in_any_form_fails_in_its_own_words(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    shapes = ("--shape", "batch=1", "--shape", "sequence=1")
    done = aotpack(
        *("build", real_model("silero_vad_half"), "-o", tmp_path / "x.aotpack", "-t", "tensorrt-rtx-sm89"),
        *(*shapes, "--json", "--keep-going"),
    )
    row = done.document("build-report")["rows"][0]
    assert row["state"] == "failed"
    assert row["reason"].startswith("TensorRT-RTX tensorrt-rtx-sm89: Invalid Node - /stft/Conv")


def test_what_the_builder_does_not_take_is_told_by_operator(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    done = aotpack(
        *("build", real_model("ddddocr_old"), "-o", tmp_path / "m.aotpack", "-t", "tensorrt-rtx-sm89"),
        *("--shape", "image_width=64", "--no-check", "--keep-going", "--json"),
    )
    (row, _) = done.document("build-report")["rows"]
    assert row["reason"] == (
        "TensorRT-RTX tensorrt-rtx-sm89: it does not take DynamicQuantizeLinear (22 nodes), "
        "ConvInteger (21 nodes), DynamicQuantizeLSTM, MatMulInteger"
    )


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([], ""),
        ([("", "false")], "false"),
        ([("Loop", "false"), ("Loop", "false")], "it does not take Loop (2 nodes)"),
        (
            [("Cast", "the type is not one"), ("Cast", "the type is not one"), ("If", "false")],
            "it does not take If; the type is not one",
        ),
        ([("NonZero", "NonZero plugin creator version 1 was not found in")], "it does not take NonZero"),
    ],
)
def test_errors_of_nodes_are_one_line(errors: list[tuple[str, str]], told: str) -> None:
    assert why_refused(errors) == told
