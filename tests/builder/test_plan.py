"""From names to jobs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.builder.plan import Plan, plan
from aotpack.builder.spec import BuildSpec, ComponentSpec, TargetSpec
from aotpack.errors import ShapeError, UnknownName, UsageError
from aotpack.selection.shapes import parse_shape
from aotpack.toolchains import toolchains


def planned(model: Path, *targets: str, portable: bool = True, **shapes: tuple[int, ...]) -> Plan:
    component = ComponentSpec(name="main", model=model, shapes=shapes)
    spec = BuildSpec(
        name="p",
        version="0",
        output=Path("p.aotpack"),
        components=(component,),
        targets=tuple(TargetSpec(target=name) for name in targets),
        portable=portable,
    )
    return plan(spec, toolchains())


def names(made: Plan) -> list[str]:
    return [job.target.name for job in made.jobs]


def test_the_portable_target_is_last_wherever_it_was_named(small_model: Path) -> None:
    assert names(planned(small_model, "qnn-htp-v73", "ort-cpu")) == ["qnn-htp-v73", "ort-cpu", "portable"]
    assert names(planned(small_model, "portable", "ort-cpu")) == ["ort-cpu", "portable"]
    assert names(planned(small_model, "ort-cpu", portable=False)) == ["ort-cpu"]
    assert names(planned(small_model, "portable", portable=False)) == ["portable"]


def test_a_target_can_be_named_as_it_is_sold(small_model: Path) -> None:
    assert names(planned(small_model, "snapdragon-x-elite", portable=False)) == ["qnn-htp-v73"]
    assert names(planned(small_model, "snapdragon-8-gen-3", portable=False)) == ["qnn-htp-v75"]


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        (("ort-cpu", "ort-cpu"), "target ort-cpu: is given twice"),
        (("qnn-htp-v73", "snapdragon-x-elite"), "is given twice; found qnn-htp-v73 before it"),
    ],
)
def test_one_target_by_two_names_is_an_error(small_model: Path, targets: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        planned(small_model, *targets)


def test_no_target_at_all_is_an_error(small_model: Path) -> None:
    with pytest.raises(UsageError, match=r"p\.aotpack: no target \(give --target"):
        planned(small_model, portable=False)


def test_an_unknown_target_quotes_the_nearest(small_model: Path) -> None:
    with pytest.raises(UnknownName, match=r"'qnn-htp-v72' \(did you mean .*qnn-htp-v73"):
        planned(small_model, "qnn-htp-v72")
    with pytest.raises(UnknownName, match=r"'snapdragon-x-elit' \(did you mean snapdragon-x-elite"):
        planned(small_model, "snapdragon-x-elit")
    with pytest.raises(UnknownName, match=r"`aotpack targets` lists them"):
        planned(small_model, "zzz")


def test_shapes_are_checked_before_anything_is_compiled(small_model: Path) -> None:
    with pytest.raises(ShapeError, match="sets a size of 8 to 9"):
        planned(small_model, image=(1, 3, 8, 9))


def test_an_id_changes_with_what_goes_in_and_with_nothing_else(small_model: Path, tmp_path: Path) -> None:
    def ids(*targets: str, model: Path = small_model, **shapes: tuple[int, ...]) -> list[str]:
        return [
            job.variant_id(job.components[0])
            for job in planned(model, *targets, portable=True, **shapes).jobs
        ]

    (tmp_path / "renamed.onnx").write_bytes(small_model.read_bytes())
    assert ids("ort-cpu") == ids("ort-cpu", model=tmp_path / "renamed.onnx")
    assert ids("ort-cpu")[0] == ids("openvino-cpu-avx2", "ort-cpu")[1]
    reshaped = ids("ort-cpu", image=(1, 3, 8, 8))
    assert reshaped[0] != ids("ort-cpu")[0]
    assert reshaped[1] == ids("ort-cpu")[1], "the portable variant is the source, whatever the shapes"
    (tmp_path / "other.onnx").write_bytes(small_model.read_bytes() + b"\x2a\x00")
    assert ids("ort-cpu", model=tmp_path / "other.onnx")[0] != ids("ort-cpu")[0]


def test_an_id_changes_with_the_toolchain(small_model: Path) -> None:
    (job, _) = planned(small_model, "ort-cpu").jobs
    before = job.variant_id(job.components[0])
    target = job.target.replace(provider_options={"a": "b"})
    assert dataclasses.replace(job, target=target).variant_id(job.components[0]) != before


def test_an_id_changes_with_our_release_unless_it_is_the_source_as_it_is(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is prepared and wrapped here is another thing in another release."""

    def ids() -> list[str]:
        return [job.variant_id(job.components[0]) for job in planned(small_model, "qnn-htp-v73").jobs]

    compiled, portable = ids()
    monkeypatch.setattr("aotpack.builder.plan.VERSION", "9.9")
    assert ids()[0] != compiled
    assert ids()[1] == portable


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("input=1,576", ("input", (1, 576))),
        ("input=1x576", ("input", (1, 576))),
        ("a=b=3", ("a=b", (3,))),
        ("scalar=", ("scalar", ())),
        ("batch=1", ("batch", (1,))),
    ],
)
def test_shapes_as_people_write_them(text: str, shape: tuple[str, tuple[int, ...]]) -> None:
    assert parse_shape([text]) == dict([shape])


@pytest.mark.parametrize("text", ["input", "=1", "input=a", "input=1,", "input=-1", "input=1.5", "", "x=0"])
def test_what_is_no_shape_is_quoted(text: str) -> None:
    with pytest.raises(UsageError, match="--shape"):
        parse_shape([text])


def test_a_shape_given_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="--shape x: is given twice"):
        parse_shape(["x=1", "x=2"])


@given(st.text(max_size=40))
def test_any_text_is_a_shape_or_a_usage_error(text: str) -> None:
    try:
        shapes = parse_shape([text])
    except UsageError:
        return
    assert all(size >= 1 for shape in shapes.values() for size in shape)
