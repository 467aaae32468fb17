"""``--precision``: it reaches the EP, at compile and at load, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from aotpack.builder.plan import plan
from aotpack.builder.spec import BuildSpec, ComponentSpec, TargetSpec
from aotpack.errors import UsageError
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import Target, find
from aotpack.toolchains import toolchains
from samples.made_models import transformer
from tests.command_line import aotpack

OPENVINO = "openvino-cpu-avx512"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("precision") / "transformer.onnx"
    onnx.save(transformer(layers=2, width=128, tokens=32), path)
    return path


def resolved(model: Path, target: str, **settings: Any) -> Target:
    spec = BuildSpec(
        name="p",
        output=Path("p.aotpack"),
        components=(ComponentSpec(name="main", model=model, shapes={}),),
        targets=(TargetSpec(target=target, **settings),),
        portable=False,
    )
    (job,) = plan(spec, toolchains()).jobs
    return job.target


@pytest.mark.skipif(
    toolchains()["openvino"].why_not_compile(find(OPENVINO), probe()) is not None,
    reason="OpenVINO cannot compile for AVX-512 here",
)
def test_it_reaches_the_ep_and_changes_the_numbers(model: Path, tmp_path: Path) -> None:
    errors, hints = {}, {}
    for precision in ("f32", "bf16"):
        package = tmp_path / f"{precision}.aotpack"
        target = ("-t", OPENVINO, "--precision", f"{OPENVINO}={precision}")
        done = aotpack("build", model, "-o", package, *target, "--no-portable", "--json")
        (row,) = done.document("build-report")["rows"]
        errors[precision] = row["numerics"]["error"]
        manifest = json.loads(aotpack("inspect", package, "--json").out)
        (variant,) = manifest["components"][0]["variants"]
        assert variant["precision"] == precision
        config = json.loads(variant["session"]["provider_options"]["load_config"])
        hints[precision] = config["CPU"]["INFERENCE_PRECISION_HINT"]
    assert hints == {"f32": "f32", "bf16": "bf16"}
    # bfloat16 has 8 bits of mantissa: in float32 the same model is right to the seventh digit.
    assert errors["f32"] < 1e-5
    assert 1e-3 < errors["bf16"] < 1e-1


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [
        # What OpenVINO would do instead, in silence or with a message on one of its nodes, was measured.
        ("openvino-cpu-avx2", "bf16", "target openvino-cpu-avx2: cannot compute in bf16; expected f32"),
        ("openvino-cpu-avx512-bf16", "f16", "cannot compute in f16; expected f32 or bf16"),
        ("ort-cpu", "f16", "CPUExecutionProvider does not let one choose the precision"),
        ("qnn-htp-v73", "f32", "QNNExecutionProvider does not let one choose the precision"),
        ("tensorrt-rtx-sm89", "f16", "does not let one choose the precision"),
        ("openvino-cpu-avx2", "f33", "--precision f33: is no precision; expected f32, bf16, f16"),
        ("ort-cpu", "qnn=f16", "unknown target in --precision 'qnn'"),
    ],
)
def test_what_a_toolchain_cannot_do_is_refused_before_anything_is_compiled(
    model: Path, tmp_path: Path, target: str, precision: str, expected: str
) -> None:
    done = aotpack("build", model, "-o", tmp_path / "x.aotpack", "-t", target, "--precision", precision)
    assert expected in done.error
    assert done.status == 2
    assert list(tmp_path.iterdir()) == []


def test_the_precision_that_a_target_has_may_be_named(model: Path) -> None:
    assert resolved(model, "qnn-htp-v73", precision="f16") == find("qnn-htp-v73")


def test_it_is_put_into_the_options_that_are_given(model: Path) -> None:
    given = '{"CPU":{"NUM_STREAMS":"1"},"GPU":{}}'
    target = resolved(model, OPENVINO, options={"load_config": given}, precision="f32")
    assert json.loads(target.provider_options["load_config"]) == {
        "CPU": {
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": "f32",
            # Without it activations are rounded to int8 where weights are quantised.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        },
        "GPU": {},
    }
    loosened = resolved(model, OPENVINO, precision="bf16")
    assert json.loads(loosened.provider_options["load_config"]) == {
        "CPU": {"INFERENCE_PRECISION_HINT": "bf16"}
    }


@pytest.mark.parametrize("config", ["{no json}", "{}{}", '{"CPU": 1}', '{"CPU": [1]}'])
def test_options_that_it_cannot_be_put_into_are_an_error(model: Path, config: str) -> None:
    with pytest.raises(UsageError, match="option load_config: is not JSON"):
        resolved(model, OPENVINO, options={"load_config": config}, precision="f32")
