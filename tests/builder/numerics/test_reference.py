"""What the portable model is run on, what of it can be compared, and its own noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from aotpack.builder.numerics.reference import make_reference, noise_of
from aotpack.builder.numerics.samples import as_input, check_samples, read_sample, write_samples
from aotpack.builder.numerics.values import ArrayFile, ArrayWriter, feeds_of, leaves
from aotpack.errors import CompileError, UsageError
from aotpack.manifest.values import TensorInfo
from tests.builder.numerics.models import compared, info, model, save, weights


def noisy(kind: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("RandomNormalLike", ["x"], ["r"])
        if kind == "normal"
        else helper.make_node("Dropout", ["x", "p", "t"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["z"]),
    ]
    constants = [
        weights("w", 8, 8),
        numpy_helper.from_array(np.array(0.5, np.float32), "p"),
        numpy_helper.from_array(np.array(True), "t"),
    ]
    return model(nodes, [info("x", [1, 8])], [info("y", [1, 8]), info("z", [1, 8])], constants)


@pytest.mark.parametrize("kind", ["normal", "dropout"])
def test_what_draws_random_numbers_is_not_compared_and_the_rest_is(kind: str, tmp_path: Path) -> None:
    found = compared(noisy(kind), noisy(kind), tmp_path)
    y, z = found.outputs
    assert (y.name, y.measure, y.error) == ("y", "relative", 0)
    assert (z.name, z.measure) == ("z", None)
    assert z.not_compared is not None
    assert "random" in z.not_compared


def classifier() -> onnx.ModelProto:
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
        helper.make_node("ZipMap", ["s"], ["p"], domain="ai.onnx.ml", classlabels_strings=["cat", "dog"]),
        helper.make_node("SplitToSequence", ["x", "k"], ["q"], axis=1),
    ]
    kinds = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    return model(
        nodes,
        [info("x", [1, 3])],
        [
            info("label", [1], TensorProto.STRING),
            helper.make_value_info("p", helper.make_sequence_type_proto(kinds)),
            helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, [1, None]),
        ],
        [numpy_helper.from_array(np.array([1, 2]), "k")],
        opsets=(("", 17), ("ai.onnx.ml", 3)),
        ir_version=8,
    )


def test_strings_maps_and_sequences_are_compared_element_by_element(tmp_path: Path) -> None:
    found = compared(classifier(), classifier(), tmp_path)
    assert [(each.name, each.measure) for each in found.outputs] == [
        ("label", "unequal"),
        ("p{keys}", "unequal"),
        ("p{values}", "relative"),
        ("q[0]", "relative"),
        ("q[1]", "relative"),
    ]
    assert all(each.error == 0 for each in found.outputs)
    wrong = classifier()
    wrong.graph.node[1].attribute[0].strings[:] = [b"cat", b"cow"]
    assert compared(classifier(), wrong, tmp_path).outputs[1].error > 0


def masked(everywhere: bool) -> onnx.ModelProto:
    mask = np.zeros((4, 4), np.float32)
    mask[slice(None) if everywhere else slice(1)] = -np.inf
    nodes = [helper.make_node("Add", ["x", "mask"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    return model(nodes, [info("x", [4, 4])], [info("y", [4, 4])], [numpy_helper.from_array(mask, "mask")])


def test_rows_without_a_number_are_no_fault_and_others_are_compared(tmp_path: Path) -> None:
    (y,) = compared(masked(False), masked(False), tmp_path).outputs
    assert (y.measure, y.error, y.undefined) == ("relative", 0, 0)
    filled = masked(False)
    filled.graph.node[1].output[0] = "p"
    filled.graph.node.append(helper.make_node("IsNaN", ["p"], ["none"]))
    filled.graph.node.append(helper.make_node("Where", ["none", "zero", "p"], ["y"]))
    filled.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    (y,) = compared(masked(False), filled, tmp_path).outputs
    assert y.error == 0
    assert y.undefined == 4 * 4
    # The other way round a number is lost.
    assert compared(filled, masked(False), tmp_path).outputs[0].error > 1e10


def test_what_has_no_number_anywhere_is_not_compared(tmp_path: Path) -> None:
    (y,) = compared(masked(True), masked(True), tmp_path).outputs
    assert (y.measure, y.error) == (None, 0)
    assert y.not_compared == "the portable model gives no finite number for it"


def test_infinities_alone_are_not_compared(tmp_path: Path) -> None:
    """float16 has a finite number for some of them, and others another infinity."""
    nodes = [helper.make_node("Abs", ["x"], ["h"]), helper.make_node("Div", ["h", "zero"], ["y"])]
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    made = model(nodes, [info("x", [4])], [info("y", [4])], [zero])
    (y,) = compared(made, nothing_but_zeros(), tmp_path).outputs
    assert (y.measure, y.not_compared) == (None, "the portable model gives no finite number for it")


def nothing_but_zeros() -> onnx.ModelProto:
    nodes = [helper.make_node("Mul", ["x", "zero"], ["h"]), helper.make_node("Abs", ["h"], ["y"])]
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    return model(nodes, [info("x", [4])], [info("y", [4])], [zero])


def test_ids_alone_have_noise_behind_them(tmp_path: Path) -> None:
    """Integers cannot be moved, so weights are."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w"], ["y"]),
    ]
    made = model(
        nodes,
        [info("ids", [1, 4], TensorProto.INT64)],
        [info("y", [1, 4, 8])],
        [weights("table", 100, 8), weights("w", 8, 8)],
    )
    meta = make_reference(save(made, tmp_path / "m.onnx"), tmp_path / "r.npz", precisions=["f32", "f16"])
    with ArrayFile(tmp_path / "r.npz") as file:
        small, large = (noise_of(file, meta, precision, "0/") for precision in ("f32", "f16"))
        assert small is not None
        assert large is not None
        assert 0 < float(small.squares[-1][0]) < 1e-8 < float(large.squares[-1][0]) < 1e-4
        assert file.get("0/in/ids").max() < 100


def test_a_model_that_does_not_load_says_so(tmp_path: Path) -> None:
    made = model([helper.make_node("Foo", ["x"], ["y"], domain="acme")], [info("x", [1])], [info("y", [1])])
    made.opset_import.append(helper.make_opsetid("acme", 1))
    with pytest.raises(CompileError, match="does not load the portable model"):
        make_reference(save(made, tmp_path / "m.onnx"), tmp_path / "r.npz")


# Values -----------------------------------------------------------------------------------------------------


def test_values_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "x": np.arange(6, dtype=np.float16).reshape(2, 3),
        "words": np.array([["a", "ö\0b"], ["", "c"]], dtype=object),
        "parts": [np.ones(2), np.zeros((1, 3))],
        "maybe": None,
        "scalar": np.float32(3.5),
    }
    with ArrayWriter(tmp_path / "a.npz") as writer:
        for name, value in values.items():
            for path, array in leaves(value):
                writer.put(f"in/{name}{path}", array)
    with ArrayFile(tmp_path / "a.npz") as file:
        feeds = feeds_of(file.under("in/"), values)
    assert feeds["maybe"] is None
    assert feeds["words"].tolist() == values["words"].tolist()
    assert [part.shape for part in feeds["parts"]] == [(2,), (1, 3)]
    assert feeds["x"].dtype == np.float16
    assert float(feeds["scalar"]) == 3.5


# The user's inputs ------------------------------------------------------------------------------------------

INFOS = (
    TensorInfo(name="x", dtype="float32", shape=("batch", 4)),
    TensorInfo(name="n", dtype="int64", shape=()),
)


def test_the_users_inputs_are_what_it_is_run_on(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["x", "n"], ["y"], axis=1)]
    made = model(nodes, [info("x", ["batch", 4]), info("n", [], TensorProto.INT64)], [info("y", ["batch"])])
    folder = tmp_path / "samples"
    folder.mkdir()
    for index in range(3):
        np.savez(folder / f"{index}.npz", x=np.full((2, 4), index + 0.5), n=np.int32(index))
    write_samples([folder], INFOS, tmp_path / "given.npz")
    meta = make_reference(
        save(made, tmp_path / "m.onnx"), tmp_path / "r.npz", given=tmp_path / "given.npz", precisions=()
    )
    assert (meta.samples, meta.inputs) == (3, "given")
    with ArrayFile(tmp_path / "r.npz") as file:
        assert file.get("2/out/0/").tolist() == [2.5, 2.5]


def test_inputs_that_the_model_refuses_are_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["x", "n"], ["y"], axis=1)]
    made = model(nodes, [info("x", ["batch", 4]), info("n", [], TensorProto.INT64)], [info("y", ["batch"])])
    np.savez(tmp_path / "far.npz", x=np.zeros((2, 4), np.float32), n=np.int64(99))
    write_samples([tmp_path / "far.npz"], INFOS, tmp_path / "given.npz")
    with pytest.raises(CompileError, match=r"refuses the inputs of far\.npz"):
        make_reference(save(made, tmp_path / "m.onnx"), tmp_path / "r.npz", given=tmp_path / "given.npz")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": np.zeros((1, 4), "f4")}, "lacks inputs: n"),
        ({"x": np.zeros((1, 5), "f4"), "n": 1}, "is of the wrong shape; found [1, 5]; expected [batch, 4]"),
        ({"x": np.zeros(4, "f4"), "n": 1}, "is of the wrong shape"),
        ({"x": np.zeros((1, 4), "i8"), "n": 1}, "is of the wrong type; found int64; expected float32"),
        ({"x": np.zeros((1, 4), "f4"), "n": 1.5}, "is of the wrong type"),
        ({"x": np.zeros((1, 4), "f4"), "n": 1, "z": 1}, "has an array 'z', which is no input; expected x, n"),
    ],
)
def test_inputs_that_do_not_fit_are_told(arrays: dict[str, object], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as error:
        read_sample(tmp_path / "a.npz", INFOS)
    assert says in str(error.value)


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no")
    np.save(tmp_path / "b.npy", np.zeros(3))
    np.savez(tmp_path / "c.npz", x=np.array([{}], dtype=object))
    for name in ("a.npz", "b.npy", "c.npz"):
        with pytest.raises(UsageError, match="is no file of inputs"):
            read_sample(tmp_path / name, INFOS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no inputs"):
        check_samples([tmp_path / "empty"], INFOS, INFOS)
    with pytest.raises(UsageError, match="is not there"):
        check_samples([tmp_path / "gone"], INFOS, INFOS)


def test_samples_of_other_sizes_are_for_other_buckets_and_targets(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for batch in (1, 2, 3):
        np.savez(folder / f"{batch}.npz", x=np.full((batch, 4), batch, "f4"), n=1)
    fixed = (INFOS[0].replace(shape=(2, 4)), INFOS[1])
    digests = {check_samples([folder], INFOS, infos) for infos in (INFOS, fixed)}
    assert len(digests) == 2
    write_samples([folder], fixed, tmp_path / "given.npz")
    with ArrayFile(tmp_path / "given.npz") as file:
        assert (file.get_json("count"), file.get_json("names")) == (1, ["2.npz"])
    other = (INFOS[0].replace(shape=(9, 4)), INFOS[1])
    with pytest.raises(UsageError, match=r"found \[1, 4\]; expected \[9, 4\]"):
        check_samples([folder], INFOS, other)
    # One that no size of the model's makes fit is a mistake, whatever the others are.
    np.savez(folder / "4.npz", x=np.zeros((2, 5), "f4"), n=1)
    with pytest.raises(UsageError, match=r"4\.npz: x: is of the wrong shape"):
        check_samples([folder], INFOS, fixed)


def test_a_digest_changes_with_what_is_in_the_files(tmp_path: Path) -> None:
    digests = set()
    for value in (1.0, 2.0):
        np.savez(tmp_path / "a.npz", x=np.full((1, 4), value), n=1)
        digests.add(check_samples([tmp_path / "a.npz"], INFOS, INFOS))
    assert len(digests) == 2
    assert check_samples([], INFOS, INFOS) is None


def test_integers_that_lose_nothing_are_taken() -> None:
    whole = TensorInfo(name="n", dtype="uint8", shape=(1,))
    assert as_input(np.array([255]), whole, "n").dtype == np.uint8
    with pytest.raises(UsageError, match="cannot hold"):
        as_input(np.array([256]), whole, "n")
