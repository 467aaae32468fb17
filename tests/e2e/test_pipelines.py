"""Packages of several components: every verb that chooses shows all of them, and all are loaded at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import aotpack
from aotpack.errors import NothingToLoad, UnknownName, UsageError
from aotpack.manifest.values import Variant
from aotpack.selection.policy import Policy
from tests.command_line import aotpack as command
from tests.repack import repack

NAMES = ["encoder", "decoder"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    tables = []
    for index, name in enumerate(NAMES):
        text = f"<ir_version: 10, opset_import: ['': 21]> g (float[1, {index + 2}] {name}_in) => ".replace(
            "'", '"'
        )
        text += f"(float[1, {index + 2}] {name}_out) {{ {name}_out = Relu({name}_in) }}"
        onnx.save(onnx.parser.parse_model(text), folder / f"{name}.onnx")
        tables.append(f'[[component]]\nname = "{name}"\nmodel = "{name}.onnx"\n')
    file = folder / "aotpack.toml"
    file.write_text('name = "pipeline"\n' + "".join(tables) + '[[target]]\ntarget = "ort-cpu"\n')
    done = command("build", file)
    assert done.status == 0, done.err
    return folder / "pipeline.aotpack"


def unloadable(package: Path, folder: Path, component: str) -> Path:
    """The package with nothing that fits in one component."""
    with aotpack.open(package) as opened:
        ids = {variant.id for variant in opened.component(component).variants}

    def change(variant: Variant) -> Variant:
        if variant.id not in ids:
            return variant
        requires = variant.compatibility.requires.replace(arch="vax")
        return variant.replace(compatibility=variant.compatibility.replace(requires=requires))

    return repack(package, folder / "unloadable.aotpack", change)


def test_all_components_are_loaded_by_name(pipeline: Path) -> None:
    with aotpack.open(pipeline) as package:
        sessions = package.load_all()
    assert list(sessions) == NAMES == list(aotpack.load_all(pipeline))
    for index, (name, session) in enumerate(sessions.items()):
        (out,) = session.run(None, {f"{name}_in": np.ones((1, index + 2), np.float32)})
        assert out.shape == (1, index + 2)


def test_options_are_for_all_of_them(pipeline: Path) -> None:
    sessions = aotpack.load_all(
        pipeline, session_options=lambda options: setattr(options, "intra_op_num_threads", 1)
    )
    assert {each.get_session_options().intra_op_num_threads for each in sessions.values()} == {1}


@pytest.mark.parametrize("component", NAMES)
def test_all_or_nothing(pipeline: Path, tmp_path: Path, component: str) -> None:
    broken = unloadable(pipeline, tmp_path, component)
    with pytest.raises(NothingToLoad, match=rf"unloadable.aotpack: component {component}: no variant"):
        aotpack.load_all(broken)
    # The other one by itself is as good as before.
    (other,) = {*NAMES} - {component}
    assert aotpack.load(broken, component=other)


def test_a_name_is_for_all_components_or_for_one(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def targets(text: str) -> list[str]:
        monkeypatch.setenv("AOTPACK_VARIANT", text)
        with aotpack.open(pipeline) as package:
            chosen = [package.select(component=name).chosen for name in NAMES]
        return [each.variant.target for each in chosen if each is not None]

    assert targets("portable") == ["portable", "portable"]
    assert targets("encoder/portable") == ["portable", "ort-cpu"]
    assert targets("encoder/portable,decoder/ort-cpu") == ["portable", "ort-cpu"]
    assert targets("decoder/portable,ort-cpu") == ["ort-cpu", "portable"]
    with pytest.raises(UnknownName, match="unknown component 'decodr'"):
        targets("decodr/portable")


def test_select_run_and_coverage_show_every_component(pipeline: Path) -> None:
    for verb, schema in (("select", "selection"), ("run", "run"), ("coverage", "coverage")):
        document = command(verb, pipeline, "--json").document(schema)
        assert [document["component"], *(other["component"] for other in document["others"])] == NAMES
        text = command(verb, pipeline).out
        assert [line for line in text.splitlines() if line.startswith("component ")] == [
            f"component {name}" for name in NAMES
        ]
        one = command(verb, pipeline, "--component", "decoder", "--json").document(schema)
        assert (one["component"], one["others"]) == ("decoder", [])
        assert "component " not in command(verb, pipeline, "--component", "decoder").out


def test_an_input_goes_to_the_component_that_has_it(pipeline: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 3), np.float32))
    done = command("run", pipeline, "--input", f"decoder_in={tmp_path / 'x.npy'}", "--runs", 1)
    assert done.status == 0, done.err
    error = command("run", pipeline, "--input", f"decoder_inn={tmp_path / 'x.npy'}").error
    assert "unknown input 'decoder_inn'" in error
    assert "decoder_in" in error


def test_select_tells_ci_whether_each_component_has_something(pipeline: Path, tmp_path: Path) -> None:
    assert command("select", pipeline).status == 0
    assert command("select", pipeline, "--require-compiled").status == 0
    assert command("select", pipeline, "--variant", "portable").status == 0
    assert command("select", pipeline, "--variant", "portable", "--require-compiled").status == 3
    for component in NAMES:
        broken = unloadable(pipeline, tmp_path, component)
        done = command("select", broken, "--json")
        assert done.status == 3
        assert done.document("selection")["component"] == "encoder"
        assert command("select", broken, "--component", component).status == 3
        (other,) = {*NAMES} - {component}
        assert command("select", broken, "--component", other).status == 0


def test_a_last_resort_is_not_enough_for_ci(pipeline: Path, tmp_path: Path) -> None:
    unknown = repack(pipeline, tmp_path / "u.aotpack", lambda each: each.replace(toolchain="nobody"))
    assert command("select", unknown).status == 3


def test_a_variant_is_extracted_by_its_target(pipeline: Path, tmp_path: Path) -> None:
    done = command(
        "extract",
        pipeline,
        "--variant",
        "ort-cpu",
        "--component",
        "decoder",
        "-o",
        tmp_path / "out",
        "--json",
    )
    document = done.document("extract")
    assert document["variant"].startswith("ort-cpu-")
    assert (tmp_path / "out" / "model.onnx").is_file()
    with aotpack.open(pipeline) as package, pytest.raises(UsageError, match="unknown variant"):
        package.extract("qnn-htp-v73", tmp_path / "other")


def test_a_policy_names_a_target(pipeline: Path) -> None:
    with aotpack.open(pipeline) as package:
        loaded = package.load_first(component="decoder", policy=Policy(variant="portable"))
    assert loaded.candidate.portable
    assert "portable" in command("run", pipeline, "--variant", "portable", "--runs", 1).out


def test_shapes_are_asked_of_the_component_that_has_them(pipeline: Path) -> None:
    done = command("select", pipeline, "--shape", "decoder_in=1,3", "--json")
    document = done.document("selection")
    assert (done.status, len(document["others"])) == (0, 1)
    wrong = command("select", pipeline, "--shape", "decoder_in=1,4", "--json")
    document = wrong.document("selection")
    assert (wrong.status, document["chosen"] is None) == (3, False)
    assert [each["code"] for each in document["others"][0]["candidates"]] == ["other-shapes"] * 2
    assert "unknown" in command("select", pipeline, "--shape", "nobody=1").error


def test_a_name_that_a_component_lacks_is_told_with_the_component_and_who_asked(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownName, match=r"^component decoder: unknown variant 'x86'"):
        aotpack.load_all(pipeline, policy=Policy(variant="encoder/ort-cpu,decoder/x86"))
    monkeypatch.setenv("AOTPACK_VARIANT", "x86")
    with pytest.raises(UnknownName, match=r"^AOTPACK_VARIANT: component encoder: unknown variant 'x86'"):
        aotpack.load(pipeline)
    for blank in ("", "  ", "\n"):
        monkeypatch.setenv("AOTPACK_VARIANT", blank)
        assert list(aotpack.load_all(pipeline)) == NAMES
    monkeypatch.setenv("AOTPACK_VARIANT", "ort-cpu\n")
    assert list(aotpack.load_all(pipeline)) == NAMES


def test_files_are_taken_out_of_any_component(pipeline: Path, tmp_path: Path) -> None:
    done = command("extract", pipeline, "--variant", "decoder/ort-cpu", "-o", tmp_path / "a", "--json")
    document = done.document("extract")
    assert document["component"] == "decoder"
    with aotpack.open(pipeline) as package:
        assert document["variant"] == package.variant("decoder/ort-cpu").id
        (path,) = package.extract("decoder/ort-cpu", tmp_path / "b")
    assert onnx.load(path).graph.input[0].name == "decoder_in"
    contradiction = command(
        "extract", pipeline, "--variant", "decoder/ort-cpu", "--component", "encoder", "-o", tmp_path / "c"
    )
    assert (contradiction.status, contradiction.error) == (
        2,
        "variant decoder/ort-cpu: is of another component; expected encoder/ort-cpu",
    )
    assert not (tmp_path / "c").exists()
