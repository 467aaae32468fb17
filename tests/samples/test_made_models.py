"""Made models: the sizes they promise, and numbers that tell variants apart."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator

from samples.made_models import cnn, transformer

SMALL = {
    "transformer": transformer(layers=2, width=32, heads=4, tokens=8),
    "cnn": cnn(channels=4, size=8),
}


@pytest.mark.parametrize("name", SMALL)
def test_onnxruntime_agrees_with_the_reference(name: str) -> None:
    model = SMALL[name]
    [feed] = model.graph.input
    shape = [dim.dim_value for dim in feed.type.tensor_type.shape.dim]
    inputs = {feed.name: np.random.default_rng(1).standard_normal(shape, np.float32)}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    actual = np.asarray(session.run(None, inputs)[0])
    [expected] = ReferenceEvaluator(model).run(None, inputs)
    np.testing.assert_allclose(actual, np.asarray(expected), atol=1e-5)
    # Neither dying out nor blowing up: an error of 1e-3 is as visible as it would be in a trained model.
    assert 0.05 < np.std(actual) < 10


def test_equal_seeds_give_equal_bytes() -> None:
    again = transformer(layers=2, width=32, heads=4, tokens=8)
    assert again.SerializeToString(deterministic=True) == SMALL["transformer"].SerializeToString(
        deterministic=True
    )
    assert cnn(seed=1) != cnn(seed=2)


def test_the_weights_take_what_the_docstring_says() -> None:
    model = transformer(layers=2, width=128, heads=2, tokens=4)
    assert model.ByteSize() == pytest.approx(48 * 2 * 128**2, rel=0.01)
