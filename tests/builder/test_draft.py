"""A first build file: whatever the model says, it reads, and says that and nothing else."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from aotpack.builder.draft import draft
from aotpack.builder.guess import Guess
from aotpack.builder.models.shapes import tensor_infos
from aotpack.builder.spec import BuildSpec
from aotpack.builder.spec_file import read_build_file
from aotpack.errors import ModelError, UsageError
from aotpack.targets.catalogue import find
from samples.made_models import cnn

#: What protobuf takes as text.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


NOTHING = Guess(shapes={}, constants={}, runs=True)


def drafted(
    folder: Path, model: onnx.ModelProto, *targets: str, guess: Guess = NOTHING
) -> tuple[str, BuildSpec]:
    path = folder / "models" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    text = draft(path, guess, name="p", folder=folder, targets=map(find, targets))
    (folder / "aotpack.toml").write_text(text, encoding="utf-8")
    return text, read_build_file(folder / "aotpack.toml")


def passing(names: dict[str, list[int | str | None]]) -> onnx.ModelProto:
    """A model whose outputs are its inputs."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in names.items()]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(len(names))]
    nodes = [helper.make_node("Identity", [name], [f"y{i}"]) for i, name in enumerate(names)]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs))


def test_what_was_found_is_in_it_and_it_builds_what_it_says(tmp_path: Path) -> None:
    text, spec = drafted(tmp_path, cnn(layers=1, channels=4, size=8), "ort-cpu", "portable", "qnn-htp-v73")
    assert text.startswith("# m.onnx: 4 nodes, ")
    assert "#   in  image: float32 1x3x8x8" in text
    assert "#   out features: float32 1x4" in text
    assert "shapes" not in text, "all of them are fixed"
    assert [target.target for target in spec.targets] == ["ort-cpu", "qnn-htp-v73"]
    assert f"# {find('qnn-htp-v73').title}\n" in text
    (component,) = spec.components
    assert component.model == tmp_path / "models" / "m.onnx"
    assert spec.output == tmp_path / "p.aotpack"


@pytest.mark.parametrize(
    ("runs", "says"), [(True, "the first that it runs with"), (False, "it did not run with it")]
)
def test_what_was_guessed_is_in_it_and_how_far_to_trust_it(tmp_path: Path, runs: bool, says: str) -> None:
    guess = Guess(shapes={"batch": (1,), "z": (1, 4)}, constants={"rate": 16000}, runs=runs)
    model = passing({"x": ["batch", 3], "z": [None, 4], "rate": []})
    text, spec = drafted(tmp_path, model, guess=guess)
    assert spec.components[0].shapes == guess.shapes
    assert spec.components[0].constants == guess.constants
    assert says in text


@given(
    st.dictionaries(TEXT, st.lists(st.one_of(st.integers(1, 9), TEXT), max_size=3), min_size=1, max_size=3)
)
def test_no_name_gets_out_of_its_place(
    tmp_path_factory: pytest.TempPathFactory, names: dict[str, list[int | str | None]]
) -> None:
    """A model may come from anywhere: its words are data, also in comments."""
    model = passing(names)
    listed = {info.name: (1,) * len(info.shape or ()) for info in tensor_infos(model)}
    guess = Guess(shapes=listed, constants=dict.fromkeys(names, 1), runs=True)
    text, spec = drafted(tmp_path_factory.mktemp("draft"), model, "ort-cpu", guess=guess)
    tables = tomllib.loads(text)
    assert set(tables) == {"name", "version", "component", "target"}
    assert len(tables["component"]) == len(tables["target"]) == 1
    assert set(spec.components[0].shapes) == set(spec.components[0].constants) == set(names)


def test_a_model_that_cannot_be_read_gives_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        draft(tmp_path / "none.onnx", NOTHING, name="p", folder=tmp_path, targets=())


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_a_build_file_cannot_hold_is_told(tmp_path: Path) -> None:
    model = tmp_path / os.fsdecode(b"m\xff.onnx")
    model.write_bytes(cnn(layers=1, channels=4, size=8).SerializeToString())
    with pytest.raises(UsageError, match=r"m\\udcff\.onnx: has a name that is not UTF-8.* \(rename it\)"):
        draft(model, NOTHING, name="p", folder=tmp_path, targets=())
