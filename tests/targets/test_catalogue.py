"""The catalogue: data that holds together."""

from __future__ import annotations

import re

import pytest

from aotpack.builder.numerics.judge import TOLERANCES
from aotpack.errors import UnknownName, UsageError
from aotpack.targets.catalogue import PORTABLE, Target, catalogue, find, read_catalogue
from aotpack.toolchains.devices import pci_vendors

ISSUE = (
    *("portable", "ort-cpu"),
    *(
        f"openvino-cpu-{isa}"
        for isa in [
            "sse41",
            "avx2",
            "avx2-vnni",
            "avx512",
            "avx512-vnni",
            "avx512-bf16",
            "avx512-fp16",
            "amx",
        ]
    ),
    *(f"qnn-htp-v{version}" for version in (68, 69, 73, 75, 79, 81)),
)


def test_every_promised_target_is_there() -> None:
    assert set(ISSUE) <= set(catalogue())


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("snapdragon-x-elite", "qnn-htp-v73"),
        ("snapdragon-8-gen-3", "qnn-htp-v75"),
        ("snapdragon-8-elite", "qnn-htp-v79"),
    ],
)
def test_hardware_is_found_by_the_name_it_is_sold_under(alias: str, name: str) -> None:
    assert find(alias) is find(name)


def test_names_and_aliases_mean_one_target_each() -> None:
    names = [name for target in catalogue().values() for name in (target.name, *target.aliases)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name) for name in names)


def test_each_target_has_a_line_for_people_and_a_tolerance() -> None:
    for target in catalogue().values():
        assert target.title
        assert "\n" not in target.title
        assert target.precision in TOLERANCES


def test_the_portable_target_is_the_least_specific() -> None:
    others = [target.specificity for target in catalogue().values() if target.name != PORTABLE]
    assert find(PORTABLE).specificity < min(others)


def test_a_third_partys_targets_come_after_and_are_found() -> None:
    mine = Target(
        name="mine-1", toolchain="mine", ep="MineEP", device="npu", title="Mine", aliases=("my-chip",)
    )
    assert list(catalogue([mine]))[-1] == "mine-1"
    assert find("my-chip", [mine]) is mine
    with pytest.raises(UnknownName, match="did you mean mine-1"):
        find("mine-2", [mine])


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "",
        "[[target]]\nname = 'x'",
        "[[target]]\nname = 'x'\nextra = 1",
        "[[target]]\nname = 'x'\ngeneration = 'y'",
    ],
)
def test_a_catalogue_that_is_none_names_its_file(text: str) -> None:
    with pytest.raises(UsageError, match=r"mine\.toml: is not a catalogue of targets"):
        read_catalogue(text, where="mine.toml")


def test_pci_numbers_are_those_of_makers() -> None:
    assert pci_vendors()["8086"] == "intel"
    assert all(re.fullmatch(r"[0-9a-f]{4,8}", number) for number in pci_vendors())


def test_a_chip_has_what_its_generation_has_but_for_what_it_says() -> None:
    whole, chip = find("qnn-htp-v73"), find("ssg2115p")
    assert (chip.name, chip.generation) == ("qnn-htp-v73-ssg2115p", whole.name)
    assert chip.provider_options == {"soc_model": "46", "htp_arch": "73", "vtcm_mb": "2"}
    assert (chip.toolchain, chip.ep, chip.precision) == (whole.toolchain, whole.ep, whole.precision)
    # Aliases mean one target, so none is taken over.
    assert not set(chip.aliases) & set(whole.aliases)


def test_a_generations_own_target_is_ranked_before_those_of_its_chips() -> None:
    chips = [target for target in catalogue().values() if target.generation is not None]
    assert chips
    for chip in chips:
        assert chip.specificity < find(chip.generation or "").specificity


def test_no_two_targets_are_the_same_hardware() -> None:
    told = [
        (target.ep, target.name == PORTABLE, target.architectures, *sorted(settings.items()))
        for target in catalogue().values()
        for settings in [{**target.provider_options, **target.environment}]
    ]
    assert len(told) == len(set(told))
