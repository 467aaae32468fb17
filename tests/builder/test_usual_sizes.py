"""Sizes that people use models with, told by names and layouts."""

from __future__ import annotations

import pytest

from aotpack.builder.usual_sizes import usual_sizes
from aotpack.manifest.values import TensorInfo

Shape = tuple[int | str | None, ...]


def infos(**shapes: Shape) -> list[TensorInfo]:
    return [
        TensorInfo(name=name, dtype="int64" if "ids" in name or "mask" in name else "float32", shape=shape)
        for name, shape in shapes.items()
    ]


@pytest.mark.parametrize(
    ("inputs", "sizes"),
    [
        (infos(input_ids=("batch_size", "sequence_length")), {"batch_size": 1, "sequence_length": 128}),
        (infos(input_ids=(None, None)), {("input_ids", 0): 1, ("input_ids", 1): 128}),
        (
            infos(ids=("batch", "seq"), mask=("batch", "total_seq"), past=("batch", 8, "past_seq", 64)),
            {"batch": 1, "seq": 128, "past_seq": 128, "total_seq": 256},
        ),
        (
            infos(ids=("batch", "seq"), mask=("batch", "past_seq + seq")),
            {"batch": 1, "seq": 128, "past_seq": 128},
        ),
        (infos(x=("batch", 3, "height", "width")), {"batch": 1, "height": 640, "width": 640}),
        (infos(x=(1, "h", "w", 3)), {"h": 640, "w": 640}),
        (infos(x=(None, 3, 48, None)), {("x", 3): 320}),
        (infos(x=(1, 3, 256, "width")), {"width": 256}),
        (infos(wave=("batch", "samples")), {"batch": 1, "samples": 16000}),
        (infos(mel=("batch", 80, "time")), {"batch": 1, "time": 100}),
        (infos(x=("N", "M"), y=(4, 4)), {}),
        (infos(x=()), {}),
    ],
)
def test_names_and_layouts_tell(inputs: list[TensorInfo], sizes: dict[object, int]) -> None:
    found = usual_sizes(inputs, infos(y=(1, 84, None)), {})
    assert {name: each.size for name, each in found.items()} == sizes


def test_an_image_of_a_classifier_is_smaller_and_metadata_say_its_size() -> None:
    image = infos(x=(1, 3, "height", "width"))
    assert usual_sizes(image, infos(y=("batch", 1000)), {})["height"].size == 224
    given = usual_sizes(image, infos(y=(1, 84, None)), {"imgsz": "[480, 640]"})
    assert (given["height"].size, given["width"].size) == (480, 640)


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "[0, 1]", "[-1]", "[1e9]", "[1, 2, 3]", "9" * 99, '"640"', "true"]
)
def test_metadata_that_say_nothing_are_passed_over(text: str) -> None:
    found = usual_sizes(infos(x=(1, 3, "height", "width")), infos(y=(1, 84, None)), {"imgsz": text})
    assert found["height"].size == 640
