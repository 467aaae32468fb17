"""Lengths that are chosen when building."""

import numpy as np
import pytest

from aotpack import flex
from aotpack.errors import FlexError
from tests.flex.running import CPU, expected, run, tensors


def model():
    return flex.attention(("batch", 2, "length", 8), score_mod=flex.sliding_window(9))


def test_each_length_has_its_own_blocks() -> None:
    found = flex.buckets(model(), "length", [96, 32, 64, 32])
    assert [size for size, _ in found] == [32, 64, 96]
    skipped = []
    for size, fixed in found:
        options = flex.Options(lowering="block-sparse", block=(16, 16))
        lowered, (record,) = flex.lower(fixed, CPU, options=options)
        feeds = tensors(fixed)
        assert feeds["Q"].shape == (2, 2, size, 8)
        np.testing.assert_allclose(run(lowered, feeds), expected(fixed, feeds), rtol=2e-6, atol=2e-6)
        skipped.append(record.blocks_skipped)
    assert skipped == sorted(skipped) and skipped[0] < skipped[-1]


def test_unknown_dimension() -> None:
    with pytest.raises(
        FlexError, match=r"dimension 'len': no input has this dimension; expected \['batch', 'length'\]"
    ):
        flex.buckets(model(), "len", [32])


@pytest.mark.parametrize("sizes", [[], [0]])
def test_sizes_that_make_no_sense(sizes: list[int]) -> None:
    with pytest.raises(FlexError, match="dimension 'length'"):
        flex.buckets(model(), "length", sizes)


def test_length_that_is_not_in_the_package() -> None:
    assert flex.choose_bucket([32, 64], 64) == 64
    with pytest.raises(
        FlexError, match=r"length: length is not in the package; found 50; expected \[32, 64\]"
    ):
        flex.choose_bucket([32, 64], 50)
