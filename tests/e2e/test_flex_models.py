"""Models with FlexAttention nodes, built for real targets and run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aotpack
from aotpack import flex
from aotpack.manifest.values import TensorInfo
from tests.command_line import aotpack as command
from tests.hardware import compilable, needs

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


def sizes(info: TensorInfo) -> tuple[int, ...]:
    assert info.shape is not None
    return tuple(size for size in info.shape if isinstance(size, int))


def test_all_variants_compute_the_same(package: Path) -> None:
    random = np.random.default_rng(1)
    with aotpack.open(package) as opened:
        inputs = {
            info.name: random.standard_normal(sizes(info)).astype(info.dtype)
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
    assert "43.8% skipped" in text
    done = command("flex", "show", tmp_path / "causal.onnx", "--png", tmp_path / "png", "--json")
    (node,) = done.document("flex")["nodes"]
    assert node["blocks_skipped"] == pytest.approx(7 / 16)
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


#: What a whole model is built for: every kind of compiler there is.
EVERYWHERE = compilable(
    "ort-cpu",
    "openvino-cpu-avx2",
    "openvino-cpu-amx",
    "qnn-htp-v73",
    "qnn-htp-v75",
    "tensorrt-rtx-sm89",
)


def transformer(length: int, width: int, heads: int, mods: list[flex.Mod]) -> onnx.ModelProto:
    """A transformer without feed-forward parts: an attention a mod, projections and residuals around it."""
    random = np.random.default_rng(5)
    nodes: list[onnx.NodeProto] = []
    initializers = [
        numpy_helper.from_array(np.array([0, length, heads, width // heads], np.int64), "split"),
        numpy_helper.from_array(np.array([0, length, width], np.int64), "join"),
        numpy_helper.from_array(np.ones(width, np.float32), "gain"),
    ]
    x = "x"
    for layer, score_mod in enumerate(mods):
        nodes.append(helper.make_node("LayerNormalization", [x, "gain"], [f"{layer}/normal"]))
        for name in "qkvo":
            weight = random.standard_normal((width, width)).astype(np.float32) / width**0.5
            initializers.append(numpy_helper.from_array(weight, f"{layer}/w{name}"))
        for name in "qkv":
            nodes += [
                helper.make_node("MatMul", [f"{layer}/normal", f"{layer}/w{name}"], [f"{layer}/{name}0"]),
                helper.make_node("Reshape", [f"{layer}/{name}0", "split"], [f"{layer}/{name}1"]),
                helper.make_node("Transpose", [f"{layer}/{name}1"], [f"{layer}/{name}"], perm=[0, 2, 1, 3]),
            ]
        inputs = (f"{layer}/q", f"{layer}/k", f"{layer}/v")
        nodes.append(flex.make_node(inputs, f"{layer}/y0", score_mod=score_mod, name=f"attention{layer}")[0])
        nodes += [
            helper.make_node("Transpose", [f"{layer}/y0"], [f"{layer}/y1"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"{layer}/y1", "join"], [f"{layer}/y2"]),
            helper.make_node("MatMul", [f"{layer}/y2", f"{layer}/wo"], [f"{layer}/y"]),
            helper.make_node("Add", [x, f"{layer}/y"], [f"x{layer}"]),
        ]
        x = f"x{layer}"
    shape = [1, length, width]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x)]
    return helper.make_model(
        helper.make_graph(nodes, "transformer", values[:1], values[1:], initializers),
        opset_imports=[helper.make_opsetid("", 24), helper.make_opsetid("ai.onnx.preview", 1)],
        ir_version=11,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    mods = [
        flex.sliding_window(64) & flex.softcap(30.0),
        flex.natten2d(5, 8, 32),
        flex.causal() & flex.alibi(4),
        flex.document(np.repeat(np.arange(4), 64)),
    ]
    onnx.save(transformer(256, 64, 4, mods), folder / "model.onnx")
    aotpack.build(folder / "model.onnx", targets=EVERYWHERE, output=folder / "model.aotpack")
    return folder / "model.aotpack"


def test_a_whole_model_is_built_for_every_compiler(whole: Path) -> None:
    (component,) = json.loads(command("inspect", whole, "--json").out)["components"]
    variants = {variant["target"]: variant for variant in component["variants"]}
    assert set(variants) == {*EVERYWHERE, "portable"}
    for target in EVERYWHERE:
        records = variants[target]["flex"]
        assert [record["node"] for record in records] == [f"attention{layer}" for layer in range(4)]
        assert {record["lowering"] for record in records} <= {"block-sparse", "fused"}
        if target.startswith(("openvino", "qnn", "tensorrt")):
            # All of it in one blob: nothing of a lowered attention stays on ONNX Runtime's own kernels.
            assert variants[target]["coverage"]["partitions"] == 1
            assert variants[target]["coverage"]["left_on_cpu"] == {}


def test_a_whole_model_gives_the_same_wherever_it_runs(whole: Path) -> None:
    x = np.random.default_rng(6).standard_normal((1, 256, 64)).astype(np.float32)
    outputs = {}
    with aotpack.open(whole) as opened:
        for candidate in opened.select(emulate=True).accepted:
            policy = aotpack.Policy(variant=candidate.id, emulate=True)
            outputs[candidate.variant.target] = opened.load(opened.select(policy=policy)).run(None, {"x": x})[
                0
            ]
    assert {"portable", "ort-cpu"} <= set(outputs)
    for target, output in outputs.items():
        # The Hexagon computes in half precision, and an AMX host in bfloat16.
        tolerance = 5e-2 if target.startswith("qnn") or target.endswith("amx") else 1e-4
        np.testing.assert_allclose(output, outputs["portable"], atol=tolerance, err_msg=target)


@needs("tensorrt-rtx-sm89")
def test_an_engine_for_rtx_is_one_node_and_has_not_run(whole: Path, tmp_path: Path) -> None:
    with aotpack.open(whole) as opened:
        (variant,) = [item for item in opened.component().variants if item.target == "tensorrt-rtx-sm89"]
        assert variant.numerics is None
        files = {path.name: path for path in opened.extract(variant.id, tmp_path)}
    graph = onnx.load(files.pop("model.onnx")).graph
    (node,) = graph.node
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    assert (node.domain, node.op_type) == ("com.microsoft", "EPContext")
    assert attributes["source"] == b"NvTensorRTRTXExecutionProvider"
    (engine,) = files.values()
    assert engine.read_bytes()[:4] == b"vtrt"


def test_neighbourhoods_in_an_image_are_taken_in_bands_by_every_compiler(tmp_path: Path) -> None:
    out = tmp_path / "image.aotpack"
    targets = [argument for target in EVERYWHERE for argument in ("-t", target)]
    done = command(
        "flex", "build", "--mod", "natten2d:7,16,64", "--shape", "1,2,1024,16", *targets, "-o", out, "--json"
    )
    # Each that runs here was held to the portable variant's numbers by the build.
    assert {row["state"] for row in done.document("build-report")["rows"]} == {"built"}
    (component,) = command("inspect", out, "--json").document("manifest")["components"]
    for variant in component["variants"]:
        if variant["target"] != "portable":
            (record,) = variant["flex"]
            assert "column at a time of a grid 64 wide" in record["why"]
            assert record["blocks_skipped"] > 0.6
            assert variant["coverage"]["left_on_cpu"] == {}
