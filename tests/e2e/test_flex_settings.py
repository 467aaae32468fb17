"""Options of the lowering of FlexAttention, from Python, the command line and build files."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import aotpack
from aotpack import flex
from aotpack.builder.flex_settings import FlexSettings
from aotpack.builder.spec import TargetSpec
from aotpack.errors import UsageError
from tests import command_line

SHAPE = (1, 4, 96, 16)
Q, K = np.meshgrid(np.arange(96), np.arange(96), indexing="ij")
SEEN = (K <= Q) & (K >= 10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Left padding: the first ten queries see no key."""
    path = tmp_path_factory.mktemp("flex") / "m.onnx"
    mask = flex.mask(lambda b, h, q, k: (k <= q) & (k >= 10))
    onnx.save(flex.attention(SHAPE, score_mod=mask), path)
    return path


@pytest.fixture(scope="module")
def feeds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(SHAPE).astype("f4") for name in "QKV"}


def wanted(feeds: dict[str, np.ndarray]) -> np.ndarray:
    scores = np.where(SEEN, feeds["Q"].astype("f8") @ feeds["K"].swapaxes(-1, -2) / 4, -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * SEEN
    return weights / np.maximum(weights.sum(-1, keepdims=True), 1e-30) @ feeds["V"]


def lowerings(path: Path) -> dict[str, str]:
    with aotpack.open(path) as opened:
        return {variant.target: variant.flex[0].lowering for variant in opened.component().variants}


def test_rows_that_see_no_key_give_zeros_everywhere(
    model: Path, feeds: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Also in the portable variant, which the others are compared with."""
    made = tmp_path / "m.aotpack"
    aotpack.build(model, targets=["ort-cpu", "qnn-htp-v73"], output=made, masked_rows="zeros")
    with aotpack.open(made) as opened:
        for variant in opened.component().variants:
            policy = aotpack.Policy(variant=variant.id, emulate=True)
            got = opened.load(policy=policy).run(None, feeds)[0]
            assert np.abs(got - wanted(feeds)).max() < 3e-2, variant.target
            assert (got[:, :, :10] == 0).all(), variant.target


def test_settings_of_one_target(model: Path, tmp_path: Path) -> None:
    made = tmp_path / "m.aotpack"
    dense = TargetSpec(target="ort-cpu", name="dense-cpu", flex=FlexSettings(lowering="dense"))
    aotpack.build(
        model, targets=["ort-cpu", dense], output=made, lowering="block-sparse", block=(32, 16), kv_heads=2
    )
    assert lowerings(made) == {"ort-cpu": "block-sparse", "dense-cpu": "dense", "portable": "function"}


def test_other_settings_are_another_variant(model: Path, tmp_path: Path) -> None:
    ids = []
    for block in ((32, 32), (16, 16)):
        aotpack.build(model, targets=["ort-cpu"], output=tmp_path / "m.aotpack", block=block)
        with aotpack.open(tmp_path / "m.aotpack") as opened:
            ids.append([variant.id for variant in opened.component().variants])
    assert ids[0][0] != ids[1][0]
    assert ids[0][1] == ids[1][1]


def test_on_the_command_line(model: Path, tmp_path: Path) -> None:
    made = tmp_path / "m.aotpack"
    options = ("--lowering", "ort-cpu=block-sparse", "--block", "32,16", "--kv-heads", "2")
    zeros = ("--masked-rows", "zeros")
    done = command_line.aotpack("build", model, "-o", made, "-t", "ort-cpu", *options, *zeros)
    assert done.status == 0, done.err
    assert lowerings(made) == {"ort-cpu": "block-sparse", "portable": "dense"}
    alone = tmp_path / "alone.aotpack"
    attention = ("--mod", "window:16", "--shape", "1,4,96,16", "-t", "ort-cpu")
    done = command_line.aotpack("flex", "build", *attention, *options, *zeros, "-o", alone)
    assert done.status == 0, done.err
    assert lowerings(alone) == {"ort-cpu": "block-sparse", "portable": "dense"}


def build_file(folder: Path, model: Path, component: str = "", target: str = "") -> command_line.Done:
    (folder / "aotpack.toml").write_text(
        f"""
name = "p"
[[component]]
name = "main"
model = {json.dumps(str(model))}
{component}
[[target]]
target = "ort-cpu"
{target}
""",
        encoding="utf-8",
    )
    return command_line.aotpack("build", "aotpack.toml", cwd=folder)


def test_in_a_build_file(model: Path, tmp_path: Path) -> None:
    done = build_file(
        tmp_path,
        model,
        'flex = { masked_rows = "zeros", lowering = "dense" }',
        'flex = { lowering = "block-sparse", block = [32, 16], kv_heads = 2 }',
    )
    assert done.status == 0, done.err
    assert lowerings(tmp_path / "p.aotpack") == {"ort-cpu": "block-sparse", "portable": "dense"}


@pytest.mark.parametrize(
    ("component", "target", "expected"),
    [
        (
            'flex = { masked_rows = "none" }',
            "",
            "line 6, component[0].flex: options.masked_rows: is no choice",
        ),
        ("", 'flex = { lowering = "sparse" }', "line 9, target[0].flex: options.lowering: is no lowering"),
        ("", 'flex = { masked_rows = "zeros" }', "line 9, target[0].flex.masked_rows: unknown key"),
        ("flex = { block = [0, 3] }", "", "line 6, component[0].flex.block[0]: cannot be that"),
        ("flex = { kv_head = 3 }", "", "did you mean kv_heads"),
    ],
)
def test_what_is_wrong_in_a_build_file(
    model: Path, tmp_path: Path, component: str, target: str, expected: str
) -> None:
    assert expected in build_file(tmp_path, model, component, target).error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--masked-rows", "no"), "--masked-rows no: options.masked_rows: is no choice; found no"),
        (("--lowering", "x=dense"), "names the target 'x', which is not built for; expected ort-cpu"),
        (("--block", "12"), "--block 12: is no block; expected queries and keys, such as 128,64"),
        (("--block", "0,1"), "--block 0,1: options.block: is not positive"),
        (("--kv-heads", "two"), "--kv-heads two: is no number of heads"),
        (("--kv-heads", "2", "--kv-heads", "4"), "--kv-heads 4: is given twice"),
    ],
)
def test_what_is_wrong_on_the_command_line(
    model: Path, tmp_path: Path, options: tuple[str, ...], expected: str
) -> None:
    done = command_line.aotpack("build", model, "-o", tmp_path / "x.aotpack", "-t", "ort-cpu", *options)
    assert expected in done.error
    assert done.status == 2


def test_a_lowering_that_does_not_fit_is_a_failed_row(model: Path, tmp_path: Path) -> None:
    report = aotpack.build(
        model, targets=["qnn-htp-v73"], output=tmp_path / "x.aotpack", lowering="fused", keep_going=True
    )
    assert report.rows[0].state == "failed"
    assert "cannot be lowered as fused" in str(report.rows[0].reason)


def test_models_without_flex_attention_refuse_them(small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--masked-rows: is for FlexAttention, and no model has such a node"):
        aotpack.build(small_model, targets=["ort-cpu"], output=tmp_path / "x.aotpack", masked_rows="zeros")
    with pytest.raises(UsageError, match="has masked_rows, which is what a model computes"):
        TargetSpec(target="ort-cpu", flex=FlexSettings(masked_rows="zeros"))
