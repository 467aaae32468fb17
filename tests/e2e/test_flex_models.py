"""Models with FlexAttention nodes, built for real targets and run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import aotpack
from aotpack import flex
from tests.command_line import aotpack as command

TARGETS = ("ort-cpu", "openvino-cpu-avx2", "qnn-htp-v73", "qnn-htp-v75")


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
