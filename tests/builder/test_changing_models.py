"""A model that changes while it is built: nothing of it is packed or kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

import aotpack
from aotpack.builder.models.model import read_model
from aotpack.builder.report import BuildReport
from aotpack.errors import ModelError
from aotpack.runtime.events import Event, EventCode
from samples.made_models import cnn

Change = Callable[[Path], None]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With its weights beside it, and a cache of its own."""
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "m" / "m.onnx"
    path.parent.mkdir()
    onnx.save_model(
        cnn(layers=2, channels=4, size=8), path, save_as_external_data=True, location="w", size_threshold=0
    )
    return path


def built(model: Path, change: Change, when: EventCode) -> BuildReport:
    """Build, and change the model as soon as the build is there."""
    changed = False

    def on_event(event: Event) -> None:
        nonlocal changed
        if event.code is when and not changed:
            changed = True
            change(model)

    output = model.parents[1] / "x.aotpack"
    report = aotpack.build(model, targets=["ort-cpu"], output=output, force=True, on_event=on_event)
    assert changed
    return report


def replaced(model: Path) -> None:
    """As an exporter does: a new file takes the name."""
    fresh = model.with_name("fresh")
    onnx.save(cnn(layers=1, channels=4, size=8), fresh)
    fresh.replace(model)


def written_over(model: Path) -> None:
    onnx.save(cnn(layers=1, channels=4, size=8), model)


def weights_changed(model: Path) -> None:
    """In place, and as long as they were."""
    weights = model.with_name("w")
    weights.write_bytes(bytes(reversed(weights.read_bytes())))


def weights_removed(model: Path) -> None:
    model.with_name("w").unlink()


@pytest.mark.parametrize("when", [EventCode.REFERENCE, EventCode.COMPILING])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (replaced, r"m\.onnx: changed while it was built \(build again\)"),
        (written_over, r"m\.onnx: changed while it was built"),
        (weights_changed, r"m\.onnx: changed while it was built"),
        (weights_removed, r"w: is gone; it was there a moment ago \(build again\)"),
    ],
)
def test_it_is_an_error_and_leaves_what_was_there(
    model: Path, change: Change, says: str, when: EventCode
) -> None:
    package = model.parents[1] / "x.aotpack"
    package.write_bytes(b"what was there before")
    with pytest.raises(ModelError, match=says):
        built(model, change, when)
    assert package.read_bytes() == b"what was there before"
    kept = [path.name for path in (model.parents[1] / "cache" / "results").rglob("done.json")]
    assert kept == [], "what was compiled of it must not be found under the old one's digest"


def test_a_file_that_is_only_touched_has_not_changed(model: Path) -> None:
    def touched(path: Path) -> None:
        os.utime(path, (0, 0))
        path.with_name("w").write_bytes(path.with_name("w").read_bytes())

    assert built(model, touched, EventCode.COMPILING).failed == ()


def test_one_that_changes_while_it_is_read_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the graph and its weights; there is no other way to be there at that moment."""
    read = onnx.load_model_from_string

    def load_and_change(*arguments: Any, **keywords: Any) -> onnx.ModelProto:
        graph: onnx.ModelProto = read(*arguments, **keywords)
        replaced(model)
        return graph

    monkeypatch.setattr(onnx, "load_model_from_string", load_and_change)
    with pytest.raises(ModelError, match=r"m\.onnx: changed while it was read \(build again\)"):
        read_model(model)
