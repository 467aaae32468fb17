"""Build files: what they may say, and where it is wrong if it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.builder.spec import BuildSpec, Limits
from aotpack.builder.spec_file import MAX_SIZE, read_build_file
from aotpack.errors import UsageError

SMALL = """
name = "p"
[[component]]
name = "main"
model = "m.onnx"
"""

FULL = """
name = "pipeline"
version = "1.2"
output = "out/p.aotpack"
license = "Apache-2.0 AND MIT"
portable = false
tolerance = 0.01
compress = 0

[limits]
seconds = 60
memory = 1000000

[[component]]
name = "encoder"
model = "models/encoder.onnx"
shapes = { input = [1, 576], batch = 2 }

[[component]]
name = "decoder"
model = "decoder.onnx"
shapes = { batch = 2 }
buckets = { short = { length = 128 }, long = { length = 1024, batch = 1 } }

[[target]]
target = "ort-cpu"

[[target]]
target = "qnn-htp-v73"
name = "npu"
options = { vtcm_mb = 8, extended_udma = true, htp_performance_mode = "burst" }
precision = "f16"
tolerance = 0.1
components = ["encoder", "decoder.short"]
share_weights = true

[[target]]
target = "webgpu"
components = ["decoder"]
"""


def read(folder: Path, text: str) -> BuildSpec:
    (folder / "aotpack.toml").write_text(text, encoding="utf-8")
    return read_build_file(folder / "aotpack.toml")


def test_all_that_a_file_says_is_in_the_spec(tmp_path: Path) -> None:
    spec = read(tmp_path, FULL)
    assert (spec.name, spec.version, spec.license) == ("pipeline", "1.2", "Apache-2.0 AND MIT")
    assert spec.output == tmp_path / "out" / "p.aotpack"
    assert (spec.portable, spec.tolerance, spec.compress) == (False, 0.01, None)
    assert spec.limits == Limits(seconds=60, memory=1_000_000)
    assert [(each.name, each.model, dict(each.shapes)) for each in spec.components] == [
        ("encoder", tmp_path / "models" / "encoder.onnx", {"input": (1, 576), "batch": (2,)}),
        ("decoder.short", tmp_path / "decoder.onnx", {"batch": (2,), "length": (128,)}),
        ("decoder.long", tmp_path / "decoder.onnx", {"batch": (1,), "length": (1024,)}),
    ]
    _, npu, gpu = spec.targets
    assert (npu.target, npu.name, npu.precision, npu.tolerance) == ("qnn-htp-v73", "npu", "f16", 0.1)
    assert npu.options == {"vtcm_mb": "8", "extended_udma": "1", "htp_performance_mode": "burst"}
    assert npu.components == ("encoder", "decoder.short")
    assert npu.share_weights
    assert gpu.components == ("decoder.short", "decoder.long"), "its buckets, all of them"


def test_what_a_file_does_not_say_is_as_on_the_command_line(tmp_path: Path) -> None:
    spec = read(tmp_path, SMALL)
    assert spec.output == tmp_path / "p.aotpack"
    assert (spec.version, spec.license, spec.portable, spec.tolerance) == ("0", None, True, None)
    assert (spec.compress, spec.limits, spec.targets) == (3, Limits(), ())


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('name = "p"', 'nane = "p"', r"line 2, nane: unknown key .*\(did you mean name"),
        ('name = "p"', "", r"aotpack\.toml, name: is missing"),
        ('name = "p"', 'name = "-"', "line 2, name: "),
        (
            'name = "p"',
            'name = "p"\ncompress = 23',
            "line 3, compress: .*found 23; expected less than or equal to 22",
        ),
        ('name = "p"', 'name = "p"\ncompress = "3"', "line 3, compress: .*; expected a whole number"),
        ('name = "p"', 'name = "p"\nlicense = "Apache 2"', "line 3, license: .*'Apache 2'; expected an SPDX"),
        ('name = "p"', 'name = "p"\nversion = 2', "line 3, version: .*; found 2; expected a text in quotes"),
        (
            'name = "p"',
            'name = "p"\ntolerance = -1',
            "line 3, tolerance: .*found -1; expected greater than or",
        ),
        ('name = "p"', 'name = "p"\nportable = 1', "line 3, portable"),
        ('model = "m.onnx"', 'model = "m.onnx"\nshapes = { x = [0] }', "shapes"),
        ('model = "m.onnx"', 'model = "m.onnx"\nshapes = { x = ["a"] }', "shapes"),
        (
            'model = "m.onnx"',
            'model = "m.onnx"\nconstants = { sr = "x" }',
            r"line 6, component\[0\]\.constants\.sr: .*; expected true or false or a whole number or a",
        ),
        (
            'model = "m.onnx"',
            'model = "m.onnx"\nbuckets = { "a b" = { n = 1 } }',
            r"line 6, component\[0\]\.buckets\.a b: .*; expected at most 128 letters",
        ),
        (
            'model = "m.onnx"',
            'model = "m.onnx"\n[target]\ntarget = "ort-cpu"',
            r"line 6, target: .*; expected \[\[target\]\] in front of each",
        ),
        ('model = "m.onnx"', "model = 1", r"line 5, component\[0\]\.model"),
        ('[[component]]\nname = "main"\nmodel = "m.onnx"', "", "component: is missing"),
        ('model = "m.onnx"', 'model = "m.onnx"\n[[component]]\nname = "main"\nmodel = "n"', "two components"),
        ('model = "m.onnx"', 'model = "m.onnx"\n[[target]]\nname = "x"', r"target\[0\]\.target: is missing"),
        (
            'model = "m.onnx"',
            'model = "m.onnx"\n[[target]]\ntarget = "ort-cpu"\ncomponents = ["mian"]',
            r"line 8, .*: target ort-cpu names the component 'mian', .*\(did you mean main\?\)",
        ),
        (
            'model = "m.onnx"',
            'model = "m.onnx"\n[[target]]\ntarget = "ort-cpu"\nprecision = "f8"',
            r"line 8, target\[0\]\.precision: .*; found 'f8'",
        ),
        ('name = "p"', 'name = "p"\nname = "q"', "is not TOML: Cannot overwrite a value"),
        ('name = "p"', 'name = "p"\n[limits]\nseconds = -1', "line 4, limits.seconds"),
        ('name = "p"', 'name = "p"\n[limits]\nsecond = 1', r"line 4, limits\.second: .*did you mean seconds"),
    ],
)
def test_an_error_says_the_line_the_key_and_what_to_write(
    tmp_path: Path, before: str, after: str, says: str
) -> None:
    assert before in SMALL
    with pytest.raises(UsageError, match=says) as caught:
        read(tmp_path, SMALL.replace(before, after, 1))
    assert str(caught.value).startswith(str(tmp_path / "aotpack.toml"))
    assert "\n" not in str(caught.value)


def test_what_is_no_build_file_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "aotpack.toml"
    with pytest.raises(UsageError, match=r"No such file or directory; expected a build file"):
        read_build_file(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="line 1: is not UTF-8; found the byte 0xff"):
        read_build_file(path)
    path.write_bytes(b"#" * (MAX_SIZE + 1))
    with pytest.raises(UsageError, match=f"is too large; expected a build file of at most {MAX_SIZE} bytes"):
        read_build_file(path)
    path.write_text("x = " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(UsageError, match="line 1: nested too deeply"):
        read_build_file(path)


@given(st.text(max_size=60))
def test_any_text_is_a_build_file_or_a_usage_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError) as caught:
        read_build_file(path)
    assert "\n" not in str(caught.value)
