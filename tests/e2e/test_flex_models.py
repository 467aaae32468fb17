"""Models with FlexAttention nodes, built for real targets and run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import aotpack
from aotpack import flex
from tests.command_line import aotpack as command
from tests.hardware import compilable

TARGETS = compilable("ort-cpu", "openvino-cpu-avx2", "qnn-htp-v73", "qnn-htp-v75")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flex")
    model = flex.attention(shape=(1, 4, 256, 32), score_mod=flex.sliding_window(64) & flex.softcap(30.0))
    onnx.save(model, folder / "attention.onnx")
    aotpack.build(folder / "attention.onnx", targets=TARGETS, output=folder / "attention.aotpack")
    return folder / "attention.aotpack"


def test_every_target_gets_its_own_lowering(package: Path) -> None:
    manifest = json.loads(command("inspect", package, "--json").out)
    lowered = {variant["target"]: variant["flex"][0] for variant in manifest["components"][0]["variants"]}
    assert set(lowered) == {*TARGETS, "portable"}
    # An EP that knows the operator finds it in the portable variant.
    assert lowered["portable"]["lowering"] == "function"
    for target in TARGETS:
        assert lowered[target]["lowering"] in {"block-sparse", "fused"}
        assert lowered[target]["why"]
    assert lowered["qnn-htp-v73"]["blocks_skipped"] > 0.3


def test_all_variants_compute_the_same(package: Path) -> None:
    random = np.random.default_rng(1)
    with aotpack.open(package) as opened:
        inputs = {
            info.name: random.standard_normal(info.shape).astype(info.dtype)
            for info in opened.component().inputs
        }
        outputs = {
            candidate.variant.target: opened.load(
                opened.select(policy=aotpack.Policy(variant=candidate.id, emulate=True))
            ).run(None, inputs)[0]
            for candidate in opened.select(emulate=True).accepted
        }
    assert {"ort-cpu", "qnn-htp-v73", "portable"} <= set(outputs)
    for target, output in outputs.items():
        tolerance = 1e-2 if target.startswith("qnn") else 1e-5
        np.testing.assert_allclose(output, outputs["portable"], atol=tolerance, err_msg=target)


def test_an_attention_is_built_from_nothing(tmp_path: Path) -> None:
    out = tmp_path / "attention.aotpack"
    arguments = [
        "--mod",
        "causal",
        "--mod",
        "softcap:30",
        "--shape",
        "1,4,256,32",
        "-t",
        "ort-cpu",
        "-o",
        out,
    ]
    done = command("flex", "build", *arguments, "--json")
    assert done.status == 0, done.err
    assert [row["state"] for row in done.document("build-report")["rows"]] == ["built", "built"]
    run = command("run", out, "--json").document("run")
    assert [info["shape"] for info in run["outputs"]] == [[1, 4, 256, 32]]


def test_a_mask_is_drawn_in_the_terminal_and_as_a_picture(tmp_path: Path) -> None:
    onnx.save(flex.attention((1, 2, 512, 16), score_mod=flex.causal()), tmp_path / "causal.onnx")
    text = command("flex", "show", tmp_path / "causal.onnx").out
    assert "512 queries x 512 keys" in text
    assert "37.5% skipped" in text
    done = command("flex", "show", tmp_path / "causal.onnx", "--png", tmp_path / "png", "--json")
    (node,) = done.document("flex")["nodes"]
    assert node["blocks_skipped"] == pytest.approx(0.375)
    assert Path(node["picture"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--mod", "causl"], "did you mean causal"),
        (["--shape", "1,4,256"], "four sizes"),
        (["--dtype", "int8"], "int8"),
    ],
)
def test_a_wrong_attention_is_refused(tmp_path: Path, arguments: list[str], expected: str) -> None:
    given = ["--shape", "1,4,256,32", *arguments]
    done = command("flex", "build", *given, "-t", "ort-cpu", "-o", tmp_path / "out.aotpack")
    assert expected in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with three attentions, the first and the last of which are the same."""
    folder = tmp_path_factory.mktemp("three")
    mods = [flex.causal() & flex.softcap(30.0), flex.sliding_window(32), flex.causal() & flex.softcap(30.0)]
    names = ["x", "y0", "y1", "y2"]
    nodes = [
        flex.make_node((names[index],) * 3, names[index + 1], score_mod=score_mod, name=f"layer{index}")[0]
        for index, score_mod in enumerate(mods)
    ]
    shape = [1, 2, 128, 16]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y2")]
    model = helper.make_model(
        helper.make_graph(nodes, "three", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 24), helper.make_opsetid("ai.onnx.preview", 1)],
        ir_version=11,
    )
    onnx.save(model, folder / "three.onnx")
    return folder / "three.onnx"


def test_each_distinct_attention_is_a_component(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "three.aotpack"
    targets = [f"--target={name}" for name in compilable("ort-cpu", "openvino-cpu-avx2", "qnn-htp-v73")]
    done = command("build", three, *targets, "--extract", "flex", "-o", out, "--json")
    assert done.status == 0, done.err
    rows = done.document("build-report")["rows"]
    assert {row["state"] for row in rows} == {"built"}
    manifest = command("inspect", out, "--json").document("manifest")
    kinds = {component["name"]: component["kind"] for component in manifest["components"]}
    assert kinds == {"main": "model", "attention-0": "flex-attention", "attention-1": "flex-attention"}
    whole = manifest["components"][0]["variants"][0]
    assert [record["node"] for record in whole["flex"]] == ["layer0", "layer1", "layer2"]
    random = np.random.default_rng(2)
    x = random.standard_normal((1, 2, 128, 16)).astype(np.float32)
    (expected,) = aotpack.load(out).run(None, {"x": x})
    for index in (0, 1, 0):
        (x,) = aotpack.load(out, component=f"attention-{index}").run(None, {"Q": x, "K": x, "V": x})
    np.testing.assert_allclose(x, expected, atol=1e-4)


def test_an_attention_of_several_lengths(tmp_path: Path) -> None:
    out = tmp_path / "lengths.aotpack"
    lengths = ["--length", "L=64", "--length", "L=128"]
    done = command("flex", "build", "--shape", "1,2,L,16", *lengths, "-t", "qnn-htp-v73", "-o", out)
    assert done.status == 0, done.err
    for length in (64, 128):
        run = command("run", out, "--component", f"attention-{length}", "--json").document("run")
        assert [info["shape"] for info in run["outputs"]] == [[1, 2, length, 16]]
    assert "attention-64" in command("run", out, "--component", "attention-96").error
