"""Metadata of models: what a model says of itself is in each variant of it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper, parser

import aotpack
from aotpack.builder.models.metadata import copy_metadata

TEXT = """<ir_version: 10, opset_import: ["": 20]>
g (float[1, 2] x) => (float[1, 2] y) <float[2, 2] w = {1, 2, 3, 4}> {
    m = MatMul (x, w)
    y = Relu (m)
}"""
SAID = {"names": "{0: 'cat'}", "stride": "32", "模": "型\n"}


def model() -> onnx.ModelProto:
    made = parser.parse_model(TEXT)
    helper.set_model_props(made, SAID)
    made.producer_name, made.producer_version, made.domain = "trainer", "3", "org.example"
    made.model_version, made.doc_string, made.graph.doc_string = 7, "A model.", "A graph."
    return made


def test_metadata_is_in_each_variant_of_each_toolchain(tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    targets = ["ort-cpu", "qnn-htp-v73", "tensorrt-rtx-sm89", "openvino-cpu-avx2"]
    report = aotpack.build(tmp_path / "m.onnx", targets=targets, output=tmp_path / "p", keep_going=True)
    assert {row.target: row.reason for row in report.rows if row.state == "failed"} == {}
    with aotpack.open(tmp_path / "p") as package:
        for variant in package.manifest.components[0].variants:
            path, *_ = package.extract(variant.id, tmp_path / variant.target)
            made = onnx.load(path, load_external_data=False)
            kept = {item.key: item.value for item in made.metadata_props}
            assert kept.items() >= SAID.items(), variant.target
            assert (made.producer_name, made.producer_version, made.domain) == ("trainer", "3", "org.example")
            assert (made.model_version, made.doc_string) == (7, "A model."), variant.target
            assert made.graph.doc_string == "A graph.", variant.target


def test_what_a_compiler_wrote_stays_and_is_not_taken_from_the_model(tmp_path: Path) -> None:
    source, made = model(), parser.parse_model(TEXT)
    helper.set_model_props(source, {"k": "source", "ep_compatibility_info.SomeExecutionProvider": "forged"})
    helper.set_model_props(made, {"k": "compiler"})
    onnx.save(source, tmp_path / "source.onnx")
    onnx.save(made, tmp_path / "made.onnx")
    copy_metadata(tmp_path / "source.onnx", tmp_path / "made.onnx")
    assert {item.key: item.value for item in onnx.load(tmp_path / "made.onnx").metadata_props} == {
        "k": "compiler"
    }


def test_a_file_is_written_only_when_something_is_missing(tmp_path: Path) -> None:
    source, made = tmp_path / "source.onnx", tmp_path / "made.onnx"
    for path, content in ((source, model()), (made, parser.parse_model(TEXT))):
        onnx.save(content, path)
        path.chmod(0o444)
    copy_metadata(source, made)
    inode = made.stat().st_ino
    assert {item.key: item.value for item in onnx.load(made).metadata_props} == SAID
    copy_metadata(source, made)
    assert made.stat().st_ino == inode


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, link: str) -> None:
    source, other = tmp_path / "source.onnx", tmp_path / "other.onnx"
    onnx.save(model(), source)
    onnx.save(parser.parse_model(TEXT), other)
    before = other.read_bytes()
    getattr(tmp_path / "made.onnx", link)(other)
    copy_metadata(source, tmp_path / "made.onnx")
    assert other.read_bytes() == before
