"""Names that users have for variants: ids, targets, and what the hardware is sold under."""

from __future__ import annotations

import re

import pytest

from aotpack.errors import UnknownName, UsageError
from aotpack.selection.variant_names import find_variant, name_for, split_name
from tests.made_packages import component, portable, variant

TWO = component(
    variant("qnn-htp-v73", called="qnn-htp-v73-aaaa"), variant("ort-cpu", called="ort-cpu-bbbb"), portable()
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("qnn-htp-v73-aaaa", "qnn-htp-v73-aaaa"),
        ("qnn-htp-v73", "qnn-htp-v73-aaaa"),
        ("snapdragon-x-elite", "qnn-htp-v73-aaaa"),
        ("ort-cpu", "ort-cpu-bbbb"),
        ("portable", "portable"),
    ],
)
def test_an_id_a_target_and_its_other_names_are_one_variant(name: str, found: str) -> None:
    assert find_variant(TWO, name).id == found


def test_an_id_comes_before_a_target_of_that_name() -> None:
    odd = component(variant("ort-cpu", called="qnn-htp-v73"), variant("qnn-htp-v73", called="x"))
    assert find_variant(odd, "qnn-htp-v73").target == "ort-cpu"


def test_several_variants_of_a_target_are_listed_in_one_line() -> None:
    sizes = component(*(variant("ort-cpu", called=f"ort-cpu-{index}") for index in range(20)), portable())
    with pytest.raises(UsageError) as caught:
        find_variant(sizes, "ort-cpu")
    text = str(caught.value)
    assert text.startswith("variant ort-cpu: component main has 20 variants for this target; expected the id")
    assert "ort-cpu-0, ort-cpu-1, " in text
    assert text.endswith("and 8 more")
    assert "\n" not in text


@pytest.mark.parametrize("name", ["", "ort-cp", "qnn-htp-v75", "QNN-HTP-V73", "../x"])
def test_what_there_is_not_is_an_error_that_quotes_what_is_near(name: str) -> None:
    with pytest.raises(UnknownName, match=f"unknown variant {re.escape(repr(name))}"):
        find_variant(TWO, name)
    if name == "ort-cp":
        with pytest.raises(UnknownName, match="did you mean ort-cpu"):
            find_variant(TWO, name)


COMPONENTS = ("encoder", "decoder")


@pytest.mark.parametrize(
    ("text", "encoder", "decoder"),
    [
        ("ort-cpu", "ort-cpu", "ort-cpu"),
        ("encoder/ort-cpu", "ort-cpu", None),
        ("encoder/ort-cpu,decoder/portable", "ort-cpu", "portable"),
        ("encoder/ort-cpu, portable", "ort-cpu", "portable"),
    ],
)
def test_each_component_can_have_a_name_of_its_own(
    text: str, encoder: str | None, decoder: str | None
) -> None:
    assert [name_for(each, text, COMPONENTS) for each in COMPONENTS] == [encoder, decoder]


def test_a_component_that_there_is_not_is_named() -> None:
    with pytest.raises(UnknownName, match=r"unknown component 'encodr'.*did you mean encoder"):
        name_for("encoder", "encodr/ort-cpu", COMPONENTS)


@pytest.mark.parametrize("text", ["a,b", "encoder/a,encoder/b"])
def test_two_names_for_one_component_are_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="two variants of one component"):
        name_for("encoder", text, COMPONENTS)


def test_a_name_for_one_variant_may_have_its_component_in_front() -> None:
    assert split_name("ort-cpu", None) == (None, "ort-cpu")
    assert split_name("ort-cpu", "decoder") == ("decoder", "ort-cpu")
    assert split_name("decoder/ort-cpu", None) == split_name("decoder/ort-cpu", "decoder")
    with pytest.raises(UsageError, match="another component; expected encoder/ort-cpu"):
        split_name("decoder/ort-cpu", "encoder")
