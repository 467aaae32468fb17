"""Quantised models, and the NPUs that take no others."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from aotpack.machine.profile import find_machine
from samples.made_models import cnn
from samples.quantised import quantise
from tests.command_line import aotpack

INTEGERS_ONLY = "qnn-htp-v73-ssg2115p"


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    onnx.save(cnn(layers=2, channels=8, size=8), folder / "cnn.onnx")
    quantise(folder / "cnn.onnx", folder / "cnn-int8.onnx", {})
    return folder / "cnn-int8.onnx"


def test_a_quantised_model_builds_and_says_what_stays_on_the_cpu(quantised: Path, tmp_path: Path) -> None:
    targets = ("-t", "qnn-htp-v73", "-t", INTEGERS_ONLY, "-t", "qnn-htp-v68-qcm6490")
    package = tmp_path / "q.aotpack"
    done = aotpack("build", quantised, "-o", package, *targets, "--no-portable", "--json")
    assert done.status == 0, done.err
    rows = done.document("build-report")["rows"]
    options = [row["ep_string"].split(":")[4:7] for row in rows]
    assert options == [["73", "60", "8"], ["73", "46", "2"], ["68", "93", "2"]]
    for row in rows:
        # Integers in between; at the borders the EP leaves the two conversions to ONNX Runtime.
        assert row["coverage"]["left_on_cpu"] == {"DequantizeLinear": 1, "QuantizeLinear": 1}
        assert row["coverage"]["compiled"] == row["coverage"]["nodes"] - 2
        assert "configured to not take Q nodes that consume a graph input" in row["reason"]
        assert row["numerics"]["ran_on"] == "emulator"
        assert row["numerics"]["error"] <= row["numerics"]["tolerance"]
    # A chip with little VTCM gets what was compiled for it, and not what needs more.
    phone = find_machine("snapdragon-8-gen-2")
    (npu,) = phone.npus or ()
    for megabytes, expected in ((8, "qnn-htp-v73"), (2, INTEGERS_ONLY)):
        profile = tmp_path / f"chip-{megabytes}.json"
        machine = phone.replace(npus=(npu.replace(vtcm_mb=megabytes),))
        profile.write_text(machine.to_json())
        chosen = aotpack("select", package, "--machine", profile, "--json").document("selection")[
            "candidates"
        ][0]
        assert (chosen["target"], chosen["verdict"]) == (expected, "OPTIMAL")


def test_the_borders_go_to_the_npu_when_the_option_says_so(quantised: Path, tmp_path: Path) -> None:
    (tmp_path / "aotpack.toml").write_text(
        f'name = "q"\nportable = false\n[[component]]\nname = "main"\nmodel = "{quantised}"\n'
        f'[[target]]\ntarget = "{INTEGERS_ONLY}"\noptions = {{ offload_graph_io_quantization = false }}\n'
    )
    done = aotpack("build", tmp_path / "aotpack.toml", "--json")
    assert done.status == 0, done.err
    (row,) = done.document("build-report")["rows"]
    assert row["coverage"]["left_on_cpu"] == {}
    assert row["coverage"]["compiled"] == row["coverage"]["nodes"]


def test_a_float_model_is_refused_before_anything_runs(small_model: Path, tmp_path: Path) -> None:
    done = aotpack("build", small_model, "-o", tmp_path / "x.aotpack", "-t", INTEGERS_ONLY, "--no-portable")
    assert done.status == 1
    assert "its NPU computes in integers alone, and main is not quantised" in done.error
    assert "running main" not in done.err
