"""Vendors' messages, as one sentence that somebody can read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.common.vendor_text import LONGEST, brief
from aotpack.errors import NothingToLoad
from aotpack.runtime.events import Refusal
from aotpack.selection.verdict import Code

NODES = ", ".join(f"/model/layers.{index}/self_attn/MatMul_{index}" for index in range(400))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It failed.", "It failed."),
        ("a\n  b\tc ", "a b c"),
        ("false; false; false", ""),
        ("no kernel; no kernel; no kernel", "no kernel"),
        ("unsupported type; false; false", "unsupported type"),
        ("[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed", "Load model from m.onnx failed"),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: "
            "/onnxruntime_src/onnxruntime/core/framework/kernel_type_str_resolver.cc:45 onnxruntime::common::"
            "Status onnxruntime::Resolver::Resolve(const Node&, int) const op_it was false.",
            "Exception during initialization: op_it was false.",
        ),
        (
            "[ONNXRuntimeError] : 11 : EP_FAIL : Check 'false' failed at src/frontends/report.cpp:151: "
            "Model wasn't fully converted: -- Conv-11 with a message: Check "
            "'data.get_partial_shape().rank().is_static()' failed at src/frontends/onnx/src/op/conv.cpp:38: "
            "FrontEnd API failed with GeneralFailure: The input data tensor's rank has to be known",
            "Model wasn't fully converted: -- Conv-11 with a message: FrontEnd API failed with "
            "GeneralFailure: The input data tensor's rank has to be known",
        ),
        ("1, 2, 3", "1, 2, 3"),
        (
            "Load model from m.onnx failed:/src/core/graph.cc:12 No such graph",
            "Load model from m.onnx failed:No such graph",
        ),
        ("At C:\\src\\core\\graph.cc:12 there is no graph", "At there is no graph"),
        (
            f"These nodes are not supported: {NODES}. Sorry.",
            "These nodes are not supported: /model/layers.0/self_attn/MatMul_0, "
            "/model/layers.1/self_attn/MatMul_1, /model/layers.2/self_attn/MatMul_2, … (400 in all) Sorry.",
        ),
    ],
)
def test_what_is_left_of_a_message(text: str, said: str) -> None:
    assert brief(text) == said


def test_a_long_message_ends_between_words() -> None:
    text = brief("word " * 200)
    assert len(text) <= LONGEST + 2
    assert text.endswith("word …")


@given(st.text(max_size=2000))
def test_any_message_becomes_one_short_line(text: str) -> None:
    said = brief(text)
    assert len(said) <= LONGEST + 2
    assert "\n" not in said
    assert brief(said) in (said, "", said.removesuffix(" …")) or len(brief(said)) <= len(said)


@pytest.mark.parametrize("letter", ["a,", "a;", "x/", "a::b(", "[", " a", "Check '", "Check 'a' failed at "])
def test_no_message_takes_long(letter: str) -> None:
    """A pattern that backtracks would take hours for a message of this length."""
    brief(letter * 200_000)


def test_nothing_to_load_tells_each_reason_once() -> None:
    refusals = [Refusal(f"qnn-{index}", "It needs an NPU.", Code.NO_DEVICE) for index in range(40)]
    refusals.append(Refusal("ort-cpu", "Its graph is broken.", Code.LOAD_FAILED))
    error = NothingToLoad("m.aotpack", refusals)
    assert "qnn-0, qnn-1, qnn-2 and 37 more: It needs an NPU; ort-cpu: Its graph is broken" in str(error)
    assert error.refusals == tuple(refusals)
    many = [Refusal(f"v{index}", f"Reason {index}.", Code.LOAD_FAILED) for index in range(50)]
    assert "v5: Reason 5; 44 more reasons" in str(NothingToLoad("m.aotpack", many))
