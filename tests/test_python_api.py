"""The front door as callers use and misuse it."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import aotpack
from aotpack import Policy
from aotpack.cache.variants import Cache
from aotpack.errors import PackageNotFound, ProfileError, UsageError
from aotpack.runtime.package import Package


@pytest.fixture(scope="module")
def path(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("api") / "m.aotpack"
    aotpack.build(small_model, targets=["ort-cpu"], output=output)
    return output


def test_a_path_is_a_text_or_a_path(path: Path, tmp_path: Path) -> None:
    for each in (path, str(path)):
        assert aotpack.load(each).get_inputs()
        assert aotpack.select(each).chosen is not None
        with aotpack.open(each) as package:
            chosen = package.select().chosen
            assert chosen is not None
            files = package.extract(chosen.id, str(tmp_path / f"{type(each).__name__}"))
        assert all(file.is_file() for file in files)
    with pytest.raises(PackageNotFound):
        aotpack.load(str(tmp_path / "none"))
    with pytest.raises(ProfileError, match="No such file"):
        aotpack.read_profile(str(tmp_path / "none.json"))


def test_what_is_chosen_survives_pickling(path: Path) -> None:
    with aotpack.open(path) as package:
        for value in (package.select(), package.manifest, aotpack.probe(), Policy(devices=("cpu",))):
            assert pickle.loads(pickle.dumps(value)) == value
        with pytest.raises(TypeError, match="its path can"):
            pickle.dumps(package)


def test_one_package_is_loaded_by_many_threads(path: Path, tmp_path: Path) -> None:
    with aotpack.open(path) as opened, ThreadPoolExecutor(8) as pool:
        package = Package(opened.reader, cache=Cache(tmp_path / "cache"))
        sessions = list(pool.map(lambda _: package.load(), range(16)))
    assert len({session.get_inputs()[0].name for session in sessions}) == 1


def test_a_closed_package_says_so(path: Path, tmp_path: Path) -> None:
    with aotpack.open(path) as opened:
        package = Package(opened.reader, cache=Cache(tmp_path / "cache"))
    assert package.select().chosen is not None
    for use in (package.load, package.verify):
        with pytest.raises(UsageError, match="is closed"):
            use()


def test_one_name_is_not_taken_for_its_letters(small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"targets: is a text; found 'ort-cpu'; expected a list: \['ort-cpu'\]"
    ):
        aotpack.build(small_model, targets="ort-cpu", output=tmp_path / "m.aotpack")
    with pytest.raises(UsageError, match="devices: is a text"):
        Policy(devices="cpu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="eps: is a text"):
        Policy(eps="CPUExecutionProvider")  # type: ignore[arg-type]


def test_a_dimension_is_a_number_and_a_shape_any_sequence(tmp_path: Path) -> None:
    import onnx

    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }'
    )
    onnx.save(model, tmp_path / "model.onnx")
    for shapes in ({"n": 2}, {"n": (2,)}, {"x": [2, 4]}):
        report = aotpack.build(
            tmp_path / "model.onnx", targets=["ort-cpu"], output=tmp_path / "m.aotpack", shapes=shapes
        )
        assert not report.failed


def test_the_release_is_there() -> None:
    assert aotpack.__version__
