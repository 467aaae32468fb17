"""Kinds of models that users of this and neighbouring tools reported trouble with, all in one build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import aotpack
from aotpack.builder.build import build_spec
from aotpack.builder.report import Row
from aotpack.builder.spec_file import read_build_file
from aotpack.cache.variants import Cache
from aotpack.selection.policy import Policy
from tests.builder.numerics.models import info, model, weights
from tests.command_line import aotpack as command

ODD = b"\xfc\xff"


def matmul(weight: onnx.TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return model(nodes, [info("x", [1, 8])], [info("y", [1, 8])], [weight])


def external(tensor: onnx.TensorProto, location: str, offset: int, folder: Path) -> onnx.TensorProto:
    """`tensor` with its data at `offset` of a file."""
    data = tensor.raw_data
    (folder / location).write_bytes(bytes(offset) + data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", len(data))):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def names_that_are_no_utf8(folder: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["xXX", "wXX"], ["mXX"], name="nodeXX"),
        helper.make_node("Relu", ["mXX"], ["y"]),
    ]
    made = model(nodes, [info("xXX", [1, 8])], [info("y", [1, 8])], [weights("wXX", 8, 8)])
    helper.set_model_props(made, {"author": "MXXller"})
    (folder / "m.onnx").write_bytes(made.SerializeToString().replace(b"XX", ODD))


def a_file_a_tensor(folder: Path) -> None:
    """Some of the names Windows reserves, or are those of our own files."""
    names = [
        "aux.weight",
        "CON",
        "nul.0.bias",
        "model.onnx",
        "model.onnx.data",
        *(f"w{i}" for i in range(60)),
    ]
    tensors = [
        external(weights(f"t{index}", 8, seed=index), name, 0, folder) for index, name in enumerate(names)
    ]
    nodes = [
        helper.make_node("Add", [f"h{index}" if index else "x", tensor.name], [f"h{index + 1}"])
        for index, tensor in enumerate(tensors)
    ]
    onnx.save(model(nodes, [info("x", [1, 8])], [info(f"h{len(names)}", [1, 8])], tensors), folder / "m.onnx")


def the_cache_of_a_hub(folder: Path) -> None:
    """The model and its data are links to files of other names in another folder."""
    (folder / "blobs").mkdir()
    onnx.save(matmul(external(weights("w", 8, 8), "w.data", 0, folder)), folder / "blobs" / "aa")
    (folder / "w.data").rename(folder / "blobs" / "bb")
    (folder / "m.onnx").symlink_to("blobs/aa")
    (folder / "w.data").symlink_to("blobs/bb")


def functions_that_call_each_other(folder: Path) -> None:
    """Parameters are called as the inputs of the model are, and a constant's data is external."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    table = external(weights("", 8, 8), "f.bin", 64, folder)
    inner = helper.make_function(
        "my",
        "Inner",
        ["x"],
        ["y"],
        [helper.make_node("Constant", [], ["w"], value=table), helper.make_node("MatMul", ["x", "w"], ["y"])],
        opsets,
    )
    branches = [
        helper.make_graph([helper.make_node(kind, ["x"], ["h"])], kind, [], [info("h", [1, 8])])
        for kind in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Inner", ["x"], ["m"], domain="my"),
        helper.make_node("If", ["c"], ["h"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Add", ["m", "h"], ["y"]),
    ]
    outer = helper.make_function("my", "Outer", ["c", "x"], ["y"], nodes, opsets)
    calls = [
        helper.make_node("Outer", ["c", source], [to], domain="my") for source, to in (("x", "a"), ("a", "y"))
    ]
    made = model(
        calls,
        [info("x", [1, 8]), info("c", [], TensorProto.BOOL)],
        [info("y", [1, 8])],
        opsets=[("", 17), ("my", 1)],
    )
    made.functions.extend([inner, outer])
    onnx.save(made, folder / "m.onnx")


def branches_of_equal_names(folder: Path) -> None:
    def branch(factor: float) -> onnx.GraphProto:
        value = numpy_helper.from_array(np.array([factor], np.float32))
        nodes = [
            helper.make_node("Constant", [], ["c"], value=value),
            helper.make_node("Mul", ["x", "c"], ["h"]),
        ]
        return helper.make_graph(nodes, "b", [], [info("h", [1, 8])])

    nodes = [
        helper.make_node("If", ["on"], [name], then_branch=branch(factor), else_branch=branch(-factor))
        for name, factor in (("p", 1.0), ("q", 3.0))
    ]
    nodes.append(helper.make_node("Add", ["p", "q"], ["y"]))
    made = model(nodes, [info("x", [1, 8]), info("on", [], TensorProto.BOOL)], [info("y", [1, 8])])
    onnx.save(made, folder / "m.onnx")


def quantised_in_a_contrib_domain(folder: Path) -> None:
    def node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], domain="com.microsoft")

    packed = np.random.default_rng(0).integers(-8, 8, (16, 8)).astype(np.int8).astype(ml_dtypes.int4)
    constants = [
        numpy_helper.from_array(packed, "w"),
        numpy_helper.from_array(np.array(0.1, np.float32), "ws"),
        numpy_helper.from_array(np.array(8 / 65535, np.float32), "xs"),
        numpy_helper.from_array(np.array(40 / 65535, np.float32), "ys"),
        numpy_helper.from_array(np.array(32768, np.uint16), "z"),
    ]
    nodes = [
        node("QuantizeLinear", ["x", "xs", "z"], "xq"),
        node("DequantizeLinear", ["xq", "xs", "z"], "xd"),
        node("DequantizeLinear", ["w", "ws"], "wd"),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        node("QuantizeLinear", ["m", "ys", "z"], "mq"),
        node("DequantizeLinear", ["mq", "ys", "z"], "y"),
    ]
    made = model(
        nodes,
        [info("x", [4, 16])],
        [info("y", [4, 8])],
        constants,
        opsets=[("", 21), ("com.microsoft", 1)],
        ir_version=10,
    )
    onnx.save(made, folder / "m.onnx")


def nodes_that_stay_on_the_cpu_with_their_data(folder: Path) -> None:
    draw = np.random.default_rng(0)
    constants = [
        weights("w", 128, 128, scale=0.1),
        numpy_helper.from_array(draw.integers(0, 255, (128, 4, 16)).astype(np.uint8), "q"),
        numpy_helper.from_array((draw.random(512) * 0.02).astype(np.float32), "s"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node(
            "MatMulNBits", ["a", "q", "s"], ["b"], domain="com.microsoft", K=128, N=128, bits=4, block_size=32
        ),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    made = model(
        nodes,
        [info("x", [1, 128])],
        [info("y", [1, 128])],
        constants,
        opsets=[("", 17), ("com.microsoft", 1)],
    )
    onnx.save(made, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)


def a_classifier_of_texts(folder: Path) -> None:
    """Labels are strings, and probabilities are a sequence of maps."""
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "s"],
            domain="ai.onnx.ml",
            coefficients=[1.0, 2, 3, 4, 5, 6],
            intercepts=[0.0, 0.0],
            classlabels_strings=["cat", "dog"],
        ),
        helper.make_node("ZipMap", ["s"], ["probs"], domain="ai.onnx.ml", classlabels_strings=["cat", "dog"]),
    ]
    of_one = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    maps = helper.make_value_info("probs", helper.make_sequence_type_proto(of_one))
    made = model(
        nodes,
        [info("x", [1, 3])],
        [info("label", [1], TensorProto.STRING), maps],
        opsets=[("", 17), ("ai.onnx.ml", 3)],
        ir_version=8,
    )
    onnx.save(made, folder / "m.onnx")


def a_sequence(folder: Path) -> None:
    made = model(
        [helper.make_node("SplitToSequence", ["x", "k"], ["q"], axis=1)],
        [info("x", [1, 8])],
        [helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, [1, None])],
        [numpy_helper.from_array(np.array([3, 5]), "k")],
    )
    onnx.save(made, folder / "m.onnx")


def elements_of_a_sequence(folder: Path) -> None:
    """As an input, of which ONNX Runtime says no shape."""
    made = model(
        [helper.make_node("ConcatFromSequence", ["parts"], ["y"], axis=1)],
        [helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, [1, None])],
        [info("y", [1, None])],
    )
    onnx.save(made, folder / "m.onnx")


def a_map_of_words(folder: Path) -> None:
    """As scikit-learn's DictVectorizer is exported; keys that it does not know count for nothing."""
    of_words = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    made = model(
        [
            helper.make_node(
                "DictVectorizer", ["words"], ["y"], domain="ai.onnx.ml", string_vocabulary=["bird", "cat"]
            )
        ],
        [helper.make_value_info("words", of_words)],
        [info("y", [1, 2])],
        opsets=[("", 17), ("ai.onnx.ml", 3)],
    )
    onnx.save(made, folder / "m.onnx")


def a_small_vocabulary(folder: Path) -> None:
    made = model(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        [info("ids", [1, 8], TensorProto.INT64)],
        [info("y", [1, 8, 4])],
        [weights("table", 7, 4)],
    )
    onnx.save(made, folder / "m.onnx")


def constants_alone(folder: Path) -> None:
    """ONNX Runtime folds all nodes; what is left is a graph without any."""
    nodes = [helper.make_node("Add", ["c", "c"], ["y"])]
    onnx.save(model(nodes, [], [info("y", [2, 2])], [weights("c", 2, 2)]), folder / "m.onnx")


def a_newer_opset(folder: Path) -> None:
    made = model(
        [helper.make_node("Relu", ["x"], ["y"])], [info("x", [1, 8])], [info("y", [1, 8])], opsets=[("", 99)]
    )
    onnx.save(made, folder / "m.onnx")


def a_type_that_no_cpu_computes(folder: Path) -> None:
    to = TensorProto.FLOAT4E2M1
    made = model(
        [helper.make_node("Cast", ["x"], ["y"], to=to)],
        [info("x", [1, 8])],
        [info("y", [1, 8], to)],
        opsets=[("", 23)],
        ir_version=11,
    )
    onnx.save(made, folder / "m.onnx")


@dataclass(frozen=True)
class Kind:
    """One model, and what is built of it."""

    write: Callable[[Path], None]
    #: Compiled by QNN as well.
    qnn: bool = False
    constants: str = ""
    #: ONNX Runtime's words where it takes no such model.
    refused: str | None = None


KINDS = (
    Kind(names_that_are_no_utf8, qnn=True),
    Kind(a_file_a_tensor, qnn=True),
    Kind(the_cache_of_a_hub),
    Kind(functions_that_call_each_other, qnn=True, constants="constants = { c = true }"),
    Kind(branches_of_equal_names, constants="constants = { on = true }"),
    Kind(quantised_in_a_contrib_domain, qnn=True),
    Kind(nodes_that_stay_on_the_cpu_with_their_data, qnn=True),
    Kind(a_classifier_of_texts),
    Kind(a_sequence),
    Kind(elements_of_a_sequence),
    Kind(a_map_of_words),
    Kind(a_small_vocabulary),
    Kind(constants_alone),
    Kind(a_newer_opset, refused="ONNX Runtime only *guarantees* support for models stamped with"),
    Kind(a_type_that_no_cpu_computes, refused="Could not find an implementation for Cast"),
)
WORKING = [kind.write.__name__ for kind in KINDS if kind.refused is None]


@dataclass(frozen=True)
class Built:
    """The package of all kinds, whose models are gone."""

    package: Path
    rows: dict[tuple[str, str], Row]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("reported")
    tables = []
    for kind in KINDS:
        name = kind.write.__name__
        # `模型`: a model.
        (folder / f"{name}-模型").mkdir()
        kind.write(folder / f"{name}-模型")
        tables.append(f'[[component]]\nname = "{name}"\nmodel = "{name}-模型/m.onnx"\n{kind.constants}\n')
    compiled = ", ".join(f'"{kind.write.__name__}"' for kind in KINDS if kind.qnn)
    text = (
        'name = "reported"\n'
        + "".join(tables)
        + '[[target]]\ntarget = "ort-cpu"\n'
        + f'[[target]]\ntarget = "qnn-htp-v73"\ncomponents = [{compiled}]\n'
    )
    # As Windows' editors save it, with a byte order mark.
    (folder / "b.toml").write_text(text, encoding="utf-8-sig")
    report = build_spec(read_build_file(folder / "b.toml"), keep_going=True, cache=Cache(folder / "cache"))
    for kind in KINDS:
        shutil.rmtree(folder / f"{kind.write.__name__}-模型")
    return Built(folder / "reported.aotpack", {(row.component, row.target): row for row in report.rows})


@pytest.mark.parametrize("name", WORKING)
def test_it_is_built_compared_and_loaded(built: Built, name: str) -> None:
    rows = {target: row for (component, target), row in built.rows.items() if component == name}
    assert {target: row.reason for target, row in rows.items() if row.state != "built"} == {}
    assert all(row.numerics is not None and row.numerics.error is not None for row in rows.values())
    with aotpack.open(built.package) as package:
        sessions = [
            package.load(component=name, policy=Policy(variant=target, emulate=True)) for target in rows
        ]
    assert all(isinstance(session, ort.InferenceSession) for session in sessions)


@pytest.mark.parametrize(
    "kind", [each for each in KINDS if each.refused], ids=lambda kind: kind.write.__name__
)
def test_what_onnx_runtime_refuses_has_not_run(built: Built, kind: Kind) -> None:
    for target in ("ort-cpu", "portable"):
        row = built.rows[kind.write.__name__, target]
        assert (row.state, row.numerics) == ("failed", None)
        assert kind.refused is not None
        assert kind.refused in str(row.reason)
    with aotpack.open(built.package) as package:
        assert kind.write.__name__ not in [each.name for each in package.manifest.components]


def test_the_command_line_runs_them_on_inputs_that_they_take(built: Built) -> None:
    """Ids below a vocabulary of seven, texts, maps and sequences: as in a build."""
    done = command("run", built.package, "--runs", "1", "--json", "--variant", "ort-cpu")
    assert done.status == 0, done.err
    document = done.document("run")
    assert [each["component"] for each in (document, *document["others"])] == WORKING
    done = command(
        "tune", built.package, "--component", "a_small_vocabulary", "--runs", "3", "--devices", "cpu"
    )
    assert done.status == 0, done.err
    done = command("check", built.package, "--component", "a_classifier_of_texts", "--runs", "3")
    assert done.status == 0, done.err


def test_types_that_are_no_tensors_are_named_in_the_manifest(built: Built) -> None:
    with aotpack.open(built.package) as package:
        outputs = {
            name: [info.dtype for info in package.component(name).outputs]
            for name in ("a_classifier_of_texts", "a_sequence")
        }
    assert outputs == {
        "a_classifier_of_texts": ["string", "seq(map(string,tensor(float)))"],
        "a_sequence": ["seq(tensor(float))"],
    }


def test_a_name_that_is_no_utf8_stays_readable(built: Built) -> None:
    with aotpack.open(built.package) as package:
        (given,) = package.component("names_that_are_no_utf8").inputs
        session = package.load(component="names_that_are_no_utf8", policy=Policy(variant="ort-cpu"))
    assert given.name == r"x\xfc\xff"
    assert session.get_inputs()[0].name == given.name
    assert session.get_modelmeta().custom_metadata_map["author"] == r"M\xfc\xffller"
