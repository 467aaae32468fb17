"""What `aotpack check` found on a machine, added to the package, and where it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import aotpack as api
from aotpack.builder.check import check
from aotpack.errors import UsageError
from aotpack.manifest.records import read_records
from tests.command_line import aotpack

MODEL = """<ir_version: 9, opset_import: ["": 18]>
g (float[batch, 4] x) => (float[batch, 4] y) { h = Mul (x, x) y = Tanh (h) }"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m.aotpack`` with its records ``here.json``, and ``other.aotpack`` of another shape."""
    path = tmp_path_factory.mktemp("records")
    onnx.save(parser.parse_model(MODEL), path / "m.onnx")
    for name, batch in (("m", 2), ("other", 3)):
        api.build(
            path / "m.onnx", targets=["ort-cpu"], output=path / f"{name}.aotpack", shapes={"batch": batch}
        )
    with api.open(path / "m.aotpack") as package:
        found, good = check(package, runs=3, machine_name="A phone")
    assert good
    (path / "here.json").write_text(found.to_json(), encoding="utf-8")
    return path


def test_records_are_shown_by_inspect_coverage_and_the_page(folder: Path) -> None:
    merged = folder / "merged.aotpack"
    done = aotpack("merge", folder / "m.aotpack", "--records", folder / "here.json", "-o", merged)
    assert (done.status, done.err) == (0, "")
    page = folder / "page.html"
    text = aotpack("inspect", merged, "--report", page).out
    assert text.count("checked  A phone") == 2
    written = page.read_text(encoding="utf-8")
    assert written.count("A phone") == 2
    assert "<script" not in written
    assert "checked on A phone" in aotpack("coverage", merged, "--machines", "avx2-desktop").out
    # The same again changes nothing.
    again = folder / "again.aotpack"
    aotpack("merge", merged, "--records", folder / "here.json", "-o", again)
    assert again.read_bytes() == merged.read_bytes()


def test_records_of_other_files_are_left_out_and_said(folder: Path) -> None:
    """The portable variant is the same in both; the other one was compiled for another shape."""
    output = folder / "partly.aotpack"
    done = aotpack("merge", folder / "other.aotpack", "--records", folder / "here.json", "-o", output)
    assert done.status == 0
    assert "records of other files were left out: main/ort-cpu-" in done.err
    with api.open(output) as package:
        assert [len(each.records) for each in package.component().variants] == [0, 1]


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        (("ran_on",), "mars", "ran_on: host or emulator is expected"),
        (("error",), -1.0, "numerics.error: Expected `float` >= 0.0"),
        (("outputs", 0, "cosine"), 1.5, "cosine: Expected `float` <= 1.0"),
        (("samples",), -1, "samples: Expected `int` >= 0"),
    ],
)
def test_records_that_nobody_measured_are_refused(
    where: tuple[str | int, ...], value: object, says: str, folder: Path, tmp_path: Path
) -> None:
    document = json.loads((folder / "here.json").read_bytes())
    inside = document["entries"][0]["record"]["numerics"]
    for key in where[:-1]:
        inside = inside[key]
    inside[where[-1]] = value
    (tmp_path / "bad.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError, match="not a file of records") as error:
        read_records(tmp_path / "bad.json")
    assert says in str(error.value)


def test_a_variant_that_no_sample_fits_says_so_and_others_are_compared(folder: Path) -> None:
    np.savez(folder / "three.npz", x=np.ones((3, 4), np.float32))
    with api.open(folder / "m.aotpack") as package:
        found, good = check(package, inputs=[folder / "three.npz"], runs=3)
        assert good
        fixed, portable = (each.record for each in found.entries)
        assert fixed.numerics is None
        assert "is of the wrong shape; found [3, 4]; expected [2, 4]" in (fixed.failure or "")
        assert portable.numerics is not None
        assert (portable.numerics.samples, portable.numerics.inputs) == (1, "given")
        np.savez(folder / "wrong.npz", x=np.ones((3, 5), np.float32))
        with pytest.raises(UsageError, match="is of the wrong shape"):
            check(package, inputs=[folder / "wrong.npz"], runs=3)
