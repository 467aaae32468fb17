"""schemas/ says what the code says, and what the code writes is valid by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from aotpack.documents import schema
from aotpack.errors import ManifestError, OutputError
from aotpack.manifest import values as m
from aotpack.manifest.parsing import parse

FOLDER = Path(__file__).parents[2] / "schemas"

EVERY_KEY = m.Manifest(
    name="vad",
    version="1.0.0",
    components=(
        m.Component(
            name="main",
            source=m.Source(sha256="a" * 64, size=2312512, opsets={"": 16}),
            inputs=(m.TensorInfo(name="input", dtype="float32", shape=("sequence_length", 576, None)),),
            outputs=(m.TensorInfo(name="output", dtype="float32"),),
            variants=(
                m.Variant(
                    id="cpu-avx2-3f9c2a71",
                    target="cpu-avx2",
                    toolchain="ort",
                    ep="CPUExecutionProvider",
                    device="cpu",
                    precision="float32",
                    shapes={"x": (1, "n", None)},
                    specificity=2,
                    compatibility=m.Compatibility(
                        ep_string="v1", requires=m.Requirements(os=("linux",), isa=("avx2",), ep=">=1")
                    ),
                    session=m.SessionSettings(config={"session.disable_model_compile": "1"}),
                    built_with={"onnxruntime": "1.32.0"},
                    coverage=m.Coverage(nodes=63, compiled=62, partitions=1, left_on_cpu={"If": 1}),
                    numerics=m.Numerics(
                        max_abs=3e-7,
                        error=2e-7,
                        tolerance=1e-3,
                        ran_on="host",
                        samples=4,
                        inputs="made",
                        outputs=(
                            m.OutputNumerics(
                                name="y",
                                measure="relative",
                                error=2e-7,
                                tolerance=1e-3,
                                max_abs=3e-7,
                                cosine=1.0,
                                noise=1e-7,
                                remark="2 elements are NaN in the portable model and numbers in the variant",
                            ),
                            m.OutputNumerics(name="z", not_compared="it draws random numbers"),
                        ),
                    ),
                    not_compared="Not run here: there is no device.",
                    records=(
                        m.Record(
                            machine="laptop",
                            os="linux",
                            arch="x86_64",
                            cpu="Intel Core Ultra 7",
                            device="Intel NPU",
                            driver="32.0.100.3104",
                            versions={"onnxruntime": "1.32.0"},
                            load_seconds=0.1,
                            first_run_seconds=0.01,
                            run_seconds=0.002,
                            runs=50,
                            peak_memory=123456789,
                            numerics=m.Numerics(ran_on="host"),
                            failure="it does not run",
                        ),
                    ),
                    flex=(
                        m.FlexLowering(node="attention", lowering="blocks", blocks_skipped=0.4, why="causal"),
                    ),
                    files=(m.File(path="model.onnx", size=1033, sha256="b" * 64, segments=(0,)),),
                ),
            ),
        ),
    ),
    segments=(m.Segment(offset=8192, stored=1033, size=1033, codec="raw", sha256="b" * 64, xxh3="c" * 32),),
)


def _sample() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(EVERY_KEY.canonical_json())
    return document


def test_the_committed_schemas_are_those_of_the_code() -> None:
    committed = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.iterdir()}
    generated = {f"{name}.schema.json": value for name, value in schema.schemas().items()}
    assert committed == generated, "run `make schemas`"


@pytest.mark.parametrize("name", schema.DOCUMENTS)
def test_every_schema_is_one_by_its_dialect(name: str) -> None:
    generated = schema.schemas()[name]
    Draft202012Validator.check_schema(generated)
    assert list(generated)[:3] == ["$schema", "$id", "title"]
    assert generated["$id"].endswith(name)


def test_a_manifest_with_every_key_is_valid_and_read_alike() -> None:
    document = _sample()
    Draft202012Validator(schema.schemas()["manifest"]).validate(document)
    assert parse(EVERY_KEY.canonical_json()) == EVERY_KEY
    # The sample is worth its name only while it has each key of a variant.
    assert set(document["components"][0]["variants"][0]) == set(m.Variant.__struct_fields__)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "../up"), ("components", []), ("unknown", 1), ("aotpack", 1), ("segments", [{}])],
)
def test_what_the_reader_refuses_the_schema_refuses(key: str, value: object) -> None:
    document = _sample() | {key: value}
    assert not Draft202012Validator(schema.schemas()["manifest"]).is_valid(document)
    with pytest.raises(ManifestError):
        parse(json.dumps(document).encode())


def test_written_schemas_are_those_returned(tmp_path: Path) -> None:
    paths = schema.write(tmp_path / "new" / "folder")
    assert [json.loads(path.read_text(encoding="utf-8")) for path in paths] == list(schema.schemas().values())


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file: cannot be written; found File exists"):
        schema.write(tmp_path / "file")
