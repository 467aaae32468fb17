"""Mods by name."""

from __future__ import annotations

import numpy as np
import pytest

from aotpack import flex
from aotpack.errors import AotpackError
from aotpack.flex.named import NAMED, parse_mods

SHAPE = (1, 4, 64, 8)

#: Each name with values that fit SHAPE, beside what it stands for.
EXAMPLES = {
    "causal": flex.causal(),
    "window:16": flex.sliding_window(16),
    "dilated:8,2": flex.dilated_window(8, 2),
    "prefix-lm:20": flex.prefix_lm(20),
    "document:40,24": flex.document([0] * 40 + [1] * 24),
    "global-window:4,16": flex.sliding_window(16) | flex.first_keys(4),
    "alibi:4": flex.alibi(4),
    "softcap:30": flex.softcap(30.0),
    "natten1d:7,64": flex.natten1d(7, 64),
    "natten2d:3,8,8": flex.natten2d(3, 8, 8),
}


def outputs(score_mod: flex.Mod | None, prob_mod: flex.Mod | None) -> np.ndarray:
    (node,) = flex.read(flex.attention(SHAPE, score_mod=score_mod, prob_mod=prob_mod))
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal(SHAPE).astype(np.float32) for _ in "QKV")
    return flex.reference(node, q, k, v)


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_name_stands_for_its_mod(text: str) -> None:
    score_mod, prob_mod = parse_mods([text])
    assert prob_mod is None
    np.testing.assert_array_equal(outputs(score_mod, None), outputs(EXAMPLES[text], None))


def test_each_name_has_an_example() -> None:
    assert {text.partition(":")[0] for text in EXAMPLES} | {"quantize"} == set(NAMED)


def test_mods_on_scores_and_on_probabilities_go_their_ways() -> None:
    score_mod, prob_mod = parse_mods(["causal", "quantize:15", "softcap:5"])
    expected = outputs(flex.causal() & flex.softcap(5.0), flex.quantize(15))
    np.testing.assert_array_equal(outputs(score_mod, prob_mod), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("causl", "did you mean causal"),
        ("softcap", "has 0 values; expected softcap:cap"),
        ("window:1,2,3", "has 3 values"),
        ("window:many", "no number; expected window:size"),
        ("window:2.5", "no whole number"),
        ("window:0", "size is not positive"),
        ("window:nan", "no whole number"),
        ("quantize:inf", "no whole number"),
        ("softcap:inf", "cap is not a positive number"),
        ("softcap:nan", "cap is not a positive number"),
    ],
)
def test_wrong_mods_are_refused(text: str, expected: str) -> None:
    with pytest.raises(AotpackError, match=expected):
        parse_mods([text])
