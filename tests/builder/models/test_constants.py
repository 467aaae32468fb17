"""Inputs that are fixed to a value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import parser

from aotpack.builder.models.constants import fix_inputs
from aotpack.builder.spec import Constant, parse_constants
from aotpack.errors import ShapeError, UnknownName, UsageError
from tests.command_line import aotpack

#: A network chosen by a rate, with a weight of its own in each branch and a choice within one of them.
CHOOSES = """<ir_version: 10, opset_import: ["": 21]>
chooses (float[2] x, int64 rate, bool[1] soft, float[n] open) => (float[2] y, float[2] z)
<int64 wide = {16000}>
{
    is_wide = Equal (rate, wide)
    y, z = If (is_wide) <
        then_branch = fast () => (float[2] a, float[2] b) <float[2] w = {1, 2}> {
            a = If (soft) <
                then_branch = softly () => (float[2] s) { s = Mul (x, w) },
                else_branch = hard () => (float[2] h) { h = Add (x, w) }
            >
            b = Identity (x)
        },
        else_branch = slow () => (float[2] c, float[2] d) <float[2] v = {3, 4}> {
            c = Mul (x, v)
            d = Add (c, open)
        }
    >
}"""

X = np.array([5, 7], np.float32)
OPEN = np.array([1, 1], np.float32)


def model() -> onnx.ModelProto:
    made = parser.parse_model(CHOOSES)
    onnx.checker.check_model(made)
    return made


def run(made: onnx.ModelProto, **inputs: object) -> list[list[float]]:
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    given_to = {"x": X, "open": OPEN, **{name: np.array(value) for name, value in inputs.items()}}
    return [each.tolist() for each in session.run(None, {k: v for k, v in given_to.items() if k in names})]


def kinds(made: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in made.graph.node}


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("soft", [True, False])
def test_it_computes_what_it_did_with_that_value(rate: int, soft: bool) -> None:
    whole = run(model(), rate=np.int64(rate), soft=[soft])
    fixed = model()
    fix_inputs(fixed, {"rate": rate, "soft": soft})
    onnx.checker.check_model(fixed, full_check=True)
    assert [value.name for value in fixed.graph.input] == ["x", "open"]
    assert run(fixed) == whole
    assert "If" not in kinds(fixed), "the branches are taken, the inner one too"


def test_a_branch_that_depends_on_another_input_stays() -> None:
    fixed = model()
    fix_inputs(fixed, {"rate": 16000})
    assert [node.op_type for node in fixed.graph.node].count("If") == 1
    for soft in (True, False):
        assert run(fixed, soft=[soft]) == run(model(), rate=np.int64(16000), soft=[soft])


@pytest.mark.parametrize(
    ("constants", "error", "says"),
    [
        ({"rat": 1}, UnknownName, r"unknown input to make constant 'rat' \(did you mean rate"),
        ({"open": 1.0}, ShapeError, "constant open: has open sizes; only an input of a fixed size"),
        ({"rate": 0.5}, UsageError, "constant rate: is no value of the input; found 0.5; expected int64"),
        ({"rate": True}, UsageError, "constant rate: is no value of the input; found True; expected int64"),
        ({"rate": 2**80}, UsageError, "constant rate: is no value of the input"),
        ({"soft": 1}, UsageError, "constant soft: is no value of the input; found 1; expected bool"),
        ({"rate": float("nan")}, UsageError, "constant rate: is no value of the input; found nan"),
    ],
)
def test_what_cannot_be_fixed_is_told(
    constants: dict[str, Constant], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fix_inputs(model(), constants)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("sr=16000", 16000), ("a=b=-3", -3), ("x=0.5", 0.5), ("x=1e3", 1000.0), ("on=true", True)],
)
def test_constants_as_people_write_them(text: str, wanted: Constant) -> None:
    (found,) = parse_constants([text]).values()
    assert (found, type(found)) == (wanted, type(wanted))


@given(st.text(max_size=20))
def test_any_text_is_a_constant_or_a_usage_error(text: str) -> None:
    try:
        parse_constants([text])
    except UsageError as error:
        assert "--constant" in str(error)


def test_a_constant_given_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="--constant x: is given twice"):
        parse_constants(["x=1", "x=2"])


def test_a_real_model_of_two_networks_compiles_whole_once_one_is_chosen(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """silero-vad holds a network for 8 kHz and one for 16 kHz."""
    vad, package = real_model("silero_vad"), tmp_path / "vad.aotpack"
    shapes = ("--shape", "input=1,576", "--shape", "state=2,1,128")
    done = aotpack(
        *("build", vad, "-o", package, *shapes, "--constant", "sr=16000"),
        *("-t", "ort-cpu", "-t", "qnn-htp-v73", "--json"),
    )
    assert done.status == 0, done.err
    rows = done.document("build-report")["rows"]
    for row in rows:
        assert row["coverage"]["left_on_cpu"] == {}
        assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
    assert package.stat().st_size < vad.stat().st_size, "the other network is not in it"
    # All of them lack the input, the portable one too, and compute what the whole model does.
    whole = ort.InferenceSession(vad, providers=["CPUExecutionProvider"])
    inputs = {
        "input": np.random.default_rng(0).standard_normal((1, 576)).astype(np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
    }
    wanted = whole.run(None, {**inputs, "sr": np.array(16000, np.int64)})[0]
    for row in rows:
        if row["target"] == "qnn-htp-v73":
            continue
        out = tmp_path / row["target"]
        assert aotpack("extract", package, "-o", out, "--variant", row["id"]).status == 0
        session = ort.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
        assert session.run(None, inputs)[0] == pytest.approx(wanted, abs=1e-5)


def test_a_build_file_has_them_too(real_model: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "aotpack.toml").write_text(
        f"""
        name = "vad"
        [[component]]
        name = "wide"
        model = "{real_model("silero_vad")}"
        shapes = {{ input = [1, 576], state = [2, 1, 128] }}
        constants = {{ sr = 16000 }}
        [[component]]
        name = "narrow"
        model = "{real_model("silero_vad")}"
        shapes = {{ input = [1, 288], state = [2, 1, 128] }}
        constants = {{ sr = 8000 }}
        [[target]]
        target = "ort-cpu"
        """,
        encoding="utf-8",
    )
    done = aotpack("build", tmp_path / "aotpack.toml", "--json")
    assert done.status == 0, done.err
    ids = {row["id"] for row in done.document("build-report")["rows"] if row["target"] == "ort-cpu"}
    assert len(ids) == 2
    error = aotpack("build", tmp_path / "aotpack.toml", "--constant", "sr=1").error
    assert "--constant: is not for build files" in error
