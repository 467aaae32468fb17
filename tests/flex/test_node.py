"""Reading nodes, and refusing wrong ones with the node and the attribute."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper

from aotpack import flex
from aotpack.errors import FlexError
from aotpack.flex import schema
from aotpack.flex.schema import DOMAIN
from tests.flex.running import CPU, run, tensors


def edited(**attributes: object) -> onnx.ModelProto:
    """A model of one node `attention`, with attributes set or, by None, removed."""
    model = flex.attention((1, 4, 20, 8), score_mod=flex.causal())
    node = model.graph.node[0]
    kept = [item for item in node.attribute if item.name not in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(
        helper.make_attribute(name, value) for name, value in attributes.items() if value is not None
    )
    return model


def graph(text: str) -> onnx.GraphProto:
    return onnx.parser.parse_graph(text)


def refused(model: onnx.ModelProto, *words: str) -> None:
    with pytest.raises(FlexError) as caught:
        flex.lower(model, CPU)
    for word in ("attention", *words):
        assert word in str(caught.value)


def test_schema_is_the_one_we_know() -> None:
    assert schema.fingerprint() == schema.FINGERPRINT


def test_changed_schema_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "FINGERPRINT", "0" * 64)
    with pytest.raises(FlexError, match="schema has changed"):
        flex.read(edited())


def test_unknown_version_of_the_domain() -> None:
    model = edited()
    model.opset_import[1].version = 2
    refused(model, DOMAIN, "found 2", "expected 1")


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(FlexError, match="attention: query heads are not a multiple"):
        flex.attention((1, 4, 20, 8), kv_shape=(1, 3, 20, 8))


@pytest.mark.parametrize(
    ("kv_shape", "words"),
    [((1, 4, 20, 9), "Q and K differ in dimension 3"), ((2, 4, 20, 8), "Q and K differ in dimension 0")],
)
def test_shapes_that_contradict(kv_shape: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(FlexError, match=words):
        flex.attention((1, 4, 20, 8), kv_shape=kv_shape)


def test_open_heads() -> None:
    model = edited()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "heads"
    refused(model, "attention.Q", "number of heads is not known")


def test_rank() -> None:
    model = edited()
    del model.graph.input[2].type.tensor_type.shape.dim[0]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    refused(model, "attention")


def test_attribute_that_is_not_in_the_schema() -> None:
    refused(
        edited(mask_mod=graph("g (float[B,H,L,S] x) => (float[B,H,L,S] y) { y = Neg(x) }")),
        "attention.mask_mod",
    )


def test_precision_that_is_no_float() -> None:
    refused(edited(softmax_precision=int(T.INT32)), "attention.softmax_precision")


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        (helper.make_attribute("scale", 1), ("attention.scale", "found INT", "expected FLOAT")),
        (helper.make_attribute("scale", "1"), ("attention.scale", "found STRING")),
        (helper.make_attribute("scale", float("nan")), ("attention.scale: is not finite",)),
        (helper.make_attribute("softmax_precision", 1.0), ("attention.softmax_precision", "expected INT")),
        (helper.make_attribute("score_mod", 3), ("attention.score_mod", "expected GRAPH")),
        (
            onnx.AttributeProto(name="scale", type=onnx.AttributeProto.FLOAT, ref_attr_name="of_a_function"),
            ("attention.scale", "a reference to 'of_a_function'"),
        ),
    ],
)
def test_attribute_of_another_type(attribute: onnx.AttributeProto, words: tuple[str, ...]) -> None:
    model = edited(**{attribute.name: None})
    model.graph.node[0].attribute.append(attribute)
    refused(model, *words)


def test_attribute_that_is_there_twice() -> None:
    model = edited(scale=0.5)
    model.graph.node[0].attribute.append(helper.make_attribute("scale", 0.25))
    refused(model, "attention.scale: is there twice")


def test_mod_with_an_operator_that_onnx_does_not_have() -> None:
    deep = graph(
        "m (float[1,4,20,20] s) => (float[1,4,20,20] o) "
        "{ c = Constant <value = bool {1}> () "
        "o = If (c) <then_branch = t () => (x) { x = Foo (s) }, else_branch = e () => (y) { y = Neg (s) }> }"
    )
    flat = graph("m (float[1,4,20,20] s) => (float[1,4,20,20] o) { o = Foo (s) }")
    for mod in (flat, deep):
        refused(edited(score_mod=mod), "attention.score_mod: Foo is no operator of opset 24")


def test_mod_that_reduces_scores_of_unknown_length() -> None:
    model = flex.attention(("batch", 4, "length", 8), score_mod=flex.causal())
    node = model.graph.node[0]
    text = "m (float[b,4,l,s] s) => (o) { o = ReduceMax <keepdims = 1> (s) }"
    node.attribute[0].g.CopyFrom(graph(text))
    refused(model, "attention.score_mod.o: shape differs from that of the scores")


@pytest.mark.parametrize("length", [64, 1024])
@pytest.mark.parametrize(
    "mod",
    [
        flex.mod(lambda score, b, h, q, k: score + flex.Table(np.array([0.5, 1.0, 2.0]))[h].like(score)),
        flex.document([0] * 10 + [1] * 20),
        flex.mask(lambda b, h, q, k: flex.Table(np.arange(10))[abs(q - k)] > 3),
    ],
    ids=["a head too few", "a document too short", "distances too large"],
)
def test_tables_that_are_too_small(mod: flex.Mod, length: int) -> None:
    refused(
        flex.attention((1, 4, length, 8), score_mod=mod), "score_mod: looks up what is not there", "Gather"
    )


@pytest.mark.parametrize("heads", [3, 8])
def test_tables_for_other_heads(heads: int) -> None:
    # A table of two dimensions is looked up flat: the next row would stand for the missing head.
    table = np.zeros((32, heads), np.float32)
    capture = flex.Capture(name="table", dtype="float32", shape=(32, heads))
    for mod in (
        flex.alibi(heads),
        flex.relative_bias(table),
        flex.relative_bias(capture),
        flex.sink_logits(table[0]),
    ):
        with pytest.raises(FlexError, match=f"has a table for other heads; found {heads}; expected 4"):
            flex.attention((1, 4, 64, 8), score_mod=flex.causal() & mod)


def test_tables_that_are_too_small_for_a_tile() -> None:
    table = flex.Table(np.zeros(10, np.float32))
    far = flex.mod(lambda score, b, h, q, k: score + table[abs(q - k)].like(score))
    with pytest.raises(FlexError, match="attention: a mod looks up what is not there; found Gather"):
        flex.lower(
            flex.attention((1, 4, 1024, 8), score_mod=far),
            CPU,
            options=flex.Options(lowering="block-sparse"),
        )


def test_mod_of_another_type() -> None:
    mod = graph("g (float16[B,H,L,S] x) => (float16[B,H,L,S] y) { y = Neg(x) }")
    refused(edited(score_mod=mod), "attention.score_mod.x", "FLOAT16", "expected FLOAT")


def test_mod_whose_output_has_another_type() -> None:
    mod = graph("g (float[B,H,L,S] x) => (y) { y = Cast<to=7>(x) }")
    refused(edited(score_mod=mod), "attention.score_mod", "INT64")


def test_mod_whose_output_has_another_shape() -> None:
    mod = graph("g (float[B,H,L,S] x) => (y) { y = ReduceSum(x) }")
    refused(edited(score_mod=mod), "attention.score_mod", "shape")


def test_mod_of_two_inputs() -> None:
    mod = graph("g (float[B,H,L,S] x, float[B,H,L,S] z) => (float[B,H,L,S] y) { y = Add(x, z) }")
    refused(edited(prob_mod=mod), "attention.prob_mod", "found 2 inputs, 1 outputs")


@pytest.mark.parametrize(
    "condition",
    [
        "flag = Constant<value = bool {1}>()",
        "n = Size(x) one = Constant<value = int64 {1}>() flag = Greater(n, one)",
    ],
)
def test_control_flow_that_is_known_is_lowered(condition: str) -> None:
    mod = graph(
        f"""g (float[B,H,L,S] x) => (float[B,H,L,S] y) {{
            {condition}
            two = Constant<value = float {{2.0}}>()
            y = If (flag) <
                then_branch = t () => (float[B,H,L,S] a) {{ a = Mul(x, two) }},
                else_branch = e () => (float[B,H,L,S] c) {{ c = Neg(x) }}
            >
        }}"""
    )
    model = edited(score_mod=mod)
    feeds = tensors(model)
    plain = flex.attention((1, 4, 20, 8), score_mod=flex.mod(lambda s, b, h, q, k: s * 2.0))
    want = run(flex.lower(plain, CPU)[0], feeds)
    for lowering in ("dense", "block-sparse"):
        result, _ = flex.lower(model, CPU, options=flex.Options(lowering=lowering))
        onnx.checker.check_model(result, full_check=True)
        np.testing.assert_allclose(run(result, feeds), want, rtol=1e-6, atol=1e-6)
    with pytest.raises(FlexError, match="attention: cannot be lowered as function; found score_mod has If"):
        flex.lower(model, CPU, options=flex.Options(lowering="function"))


def test_control_flow_that_depends_on_scores() -> None:
    mod = graph(
        """g (float[B,H,L,S] x) => (float[B,H,L,S] y) {
            top = ReduceMax<keepdims = 0>(x)
            zero = Constant<value = float {0.0}>()
            flag = Greater(top, zero)
            y = If (flag) <
                then_branch = t () => (float[B,H,L,S] a) { a = Neg(x) },
                else_branch = e () => (float[B,H,L,S] c) { c = Identity(x) }
            >
        }"""
    )
    model = edited(score_mod=mod)
    result, (record,) = flex.lower(model, CPU)
    assert record.lowering == "dense"
    feeds = tensors(model)
    plain = flex.attention((1, 4, 20, 8), score_mod=flex.mod(lambda s, b, h, q, k: -s))
    np.testing.assert_allclose(
        run(result, feeds), run(flex.lower(plain, CPU)[0], feeds), rtol=1e-6, atol=1e-6
    )


def whole_model(body: str, *functions: str) -> onnx.ModelProto:
    tensor = "float[1,2,30,8]"
    text = f"""<ir_version: 10, opset_import: ["": 21, "{DOMAIN}": 1, "local": 1]>
        main ({tensor} Q, {tensor} K, {tensor} V, bool flag) => ({tensor} Y) {{ {body} }}
        """ + "\n".join(functions)
    return onnx.parser.parse_model(text)


MOD = "score_mod = m (float[B,H,L,S] x) => (float[B,H,L,S] y) { y = Mul(x, factor) }"


@pytest.mark.parametrize("constant", ["factor = Constant<value = float {3.0}>()", ""])
def test_captures(constant: str) -> None:
    model = whole_model(f"{constant} Y = {DOMAIN}.FlexAttention <{MOD}> (Q, K, V)")
    if not constant:
        model.graph.input.append(helper.make_tensor_value_info("factor", T.FLOAT, []))
    (node,) = flex.read(model)
    assert (set(node.constants), set(node.captured)) == (
        ({"factor"}, set()) if constant else (set(), {"factor"})
    )
    feeds = tensors(model) | {"flag": np.array(True)}
    if not constant:
        feeds["factor"] = np.array(3, np.float32)
    plain = flex.attention((1, 2, 30, 8), score_mod=flex.mod(lambda s, b, h, q, k: s * 3.0))
    want = run(flex.lower(plain, CPU)[0], {name: feeds[name] for name in "QKV"})
    for lowering in ("function", "dense", "block-sparse") if constant else ("dense", "block-sparse"):
        result, _ = flex.lower(model, CPU, options=flex.Options(lowering=lowering))
        used = {value.name for value in result.graph.input}
        np.testing.assert_allclose(run(result, {n: feeds[n] for n in used}), want, rtol=1e-6, atol=1e-6)


def test_nodes_in_branches_and_functions() -> None:
    model = whole_model(
        f"""A = If (flag) <
            then_branch = t () => (float[1,2,30,8] a) {{ a = {DOMAIN}.FlexAttention (Q, K, V) }},
            else_branch = e () => (float[1,2,30,8] c) {{ c = Neg(Q) }}
        >
        Y = local.twice (A, K, V)""",
        f"""<domain: "local", opset_import: ["": 21, "{DOMAIN}": 1]>
        twice (Q, K, V) => (Z) {{
            X = {DOMAIN}.FlexAttention (Q, K, V)
            Z = {DOMAIN}.FlexAttention (X, K, V)
        }}""",
    )
    assert flex.has_flex(model)
    assert len(flex.read(model)) == 3
    feeds = tensors(model)
    del feeds["flag"]
    once, _ = flex.lower(flex.attention((1, 2, 30, 8)), CPU)
    want = feeds["Q"]
    for _ in range(3):
        want = run(once, feeds | {"Q": want})
    for lowering in ("function", "dense", "block-sparse"):
        result, records = flex.lower(model, CPU, options=flex.Options(lowering=lowering))
        assert [record.lowering for record in records] == [lowering] * 3
        assert records[0].node.startswith("graph.node[0].then_branch")
        onnx.checker.check_model(result, full_check=True)
        assert flex.has_flex(result) == (lowering == "function")
        got = run(result, feeds | {"flag": np.array(True)})
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_intermediate_shapes_are_inferred() -> None:
    model = whole_model(
        f"""perm = Constant<value_ints = [0, 15, 2, 8]>()
        K2 = Neg(K)
        V2 = Relu(V)
        Y = {DOMAIN}.FlexAttention (Q, K2, V2)"""
    )
    (node,) = flex.read(model)
    assert node.k_shape == (1, 2, 30, 8)


def test_old_opset() -> None:
    model = edited()
    model.opset_import[0].version = 17
    with pytest.raises(FlexError, match="model: opset is too old; found 17"):
        flex.lower(model, CPU)


def test_a_loop_in_a_mod_is_run_as_it_is() -> None:
    mod = graph(
        """g (float[B,H,L,S] x) => (float[B,H,L,S] y) {
            count = Constant<value = int64 {3}>()
            go = Constant<value = bool {1}>()
            two = Constant<value = float {2.0}>()
            y = Loop (count, go, x) <
                body = b (int64 i, bool again, float[B,H,L,S] a) => (bool still, float[B,H,L,S] c) {
                    still = Identity(again)
                    c = Mul(a, two)
                }
            >
        }"""
    )
    model = edited(score_mod=mod)
    result, (record,) = flex.lower(model, CPU)
    onnx.checker.check_model(result, full_check=True)
    assert record.lowering == "dense"
    assert "Loop 'y'" in record.why
    feeds = tensors(model)
    plain = flex.attention((1, 4, 20, 8), score_mod=flex.mod(lambda s, b, h, q, k: s * 8.0))
    np.testing.assert_allclose(
        run(result, feeds), run(flex.lower(plain, CPU)[0], feeds), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(FlexError, match=r"attention: cannot be lowered as block-sparse; found .*Loop"):
        flex.lower(model, CPU, options=flex.Options(lowering="block-sparse"))


@pytest.mark.parametrize(("kv_heads", "refused_"), [(1, False), (2, False), (3, True), (8, True)])
def test_heads_of_a_tile_that_do_not_divide(kv_heads: int, refused_: bool) -> None:
    options = flex.Options(lowering="block-sparse", kv_heads=kv_heads)
    if refused_:
        with pytest.raises(FlexError, match=f"attention: cannot be lowered .*kv_heads {kv_heads}"):
            flex.lower(edited(), CPU, options=options)
    else:
        assert flex.lower(edited(), CPU, options=options)[1][0].lowering == "block-sparse"


@pytest.mark.parametrize("options", [{"kv_heads": 0}, {"block": (0, 16)}])
def test_options_that_are_not_positive(options: dict[str, Any]) -> None:
    with pytest.raises(FlexError, match=f"options.{next(iter(options))}: is not positive"):
        flex.Options(**options)
