"""Real models built with the shapes that people use them with, and compared on inputs that look real.

samples/real_builds.toml says how each is built, and why a target has none. ``python -m benchmarks.models``
makes the table of docs/models.md of it; tests/e2e/test_real_builds.py holds every outcome to it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from aotpack.builder.build import build
from aotpack.builder.report import Row
from aotpack.builder.spec import Constant
from aotpack.errors import BuildFailed
from samples.real_inputs import make
from samples.real_models import fetch

__all__ = ["TARGETS", "RealBuild", "build_real", "known", "outcome", "surprise"]

_TABLE = Path(__file__).with_suffix(".toml")

#: The columns of the table.
TARGETS = (
    "portable",
    "ort-cpu",
    "openvino-cpu-avx2",
    "openvino-cpu-amx",
    "qnn-htp-v75",
    "webgpu",
    "tensorrt-rtx-sm89",
)

#: How aotpack begins to say that a variant was made and refused.
_OFF = "its numbers are off"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealBuild:
    """One table of samples/real_builds.toml; what its keys mean is said there."""

    name: str
    what: str
    shapes: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, Mapping[str, Any]]
    constants: Mapping[str, Constant] = field(default_factory=dict)
    quick: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    fails: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)


def known() -> dict[str, RealBuild]:
    """All builds by the name of their model, in the order of the table."""
    tables = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: RealBuild(name=name, **_with_tuples(table)) for name, table in tables.items()}


def _with_tuples(table: dict[str, Any]) -> dict[str, Any]:
    shapes = {name: tuple(sizes) for name, sizes in table["shapes"].items()}
    return table | {"shapes": shapes, "quick": tuple(table.get("quick", ()))}


def build_real(
    real: RealBuild, targets: Collection[str], folder: Path, *, samples: int = 2, reuse: bool = True
) -> list[Row]:
    """Build a model for some of `TARGETS` into a package in `folder`; its rows, in the order of `TARGETS`.

    Args:
        real: what to build.
        targets: some of `TARGETS`; each must be one that can be compiled for here.
        folder: empty; the inputs and the package are written into it.
        samples: inputs that each variant is compared on.
        reuse: as in `aotpack.build`.

    Raises:
        As `aotpack.build`, but not for targets that fail: those are rows.
    """
    model = fetch(real.name)
    inputs = folder / "inputs"
    inputs.mkdir()
    for seed in range(samples):
        np.savez(inputs / f"{seed}.npz", **_inputs(model, real, seed))
    try:
        report = build(
            model,
            targets=[target for target in targets if target != "portable"],
            portable="portable" in targets,
            output=folder / f"{real.name}.aotpack",
            shapes=real.shapes,
            constants=real.constants,
            inputs=inputs,
            keep_going=True,
            reuse=reuse,
        )
    except BuildFailed as error:
        # Not one variant came out.
        report = error.report
    return sorted(report.rows, key=lambda row: TARGETS.index(row.target))


def outcome(row: Row) -> Literal["built", "refused", "fails"]:
    """What became of a target: a variant, one whose numbers are off, or none."""
    if row.state == "built":
        return "built"
    return "refused" if (row.reason or "").startswith(_OFF) else "fails"


def surprise(real: RealBuild, row: Row) -> str | None:
    """In what the outcome is not the one that samples/real_builds.toml explains; None if it is."""
    expected = {**dict.fromkeys(real.refused, "refused"), **dict.fromkeys(real.fails, "fails")}
    wanted, came = expected.get(row.target, "built"), outcome(row)
    if wanted == came:
        return None
    return f"{real.name} for {row.target}: {came} instead of {wanted}: {row.reason or 'no reason given'}"


def _inputs(model: Path, real: RealBuild, seed: int) -> dict[str, Any]:
    """One sample of the inputs of a model."""
    made = {}
    for info in onnx.load(model, load_external_data=False).graph.input:
        if info.name in real.constants or info.name not in real.inputs:
            continue
        tensor = info.type.tensor_type
        how = real.inputs[info.name]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if "value" in how:
            made[info.name] = np.asarray(how["value"], dtype)
            continue
        shape = real.shapes.get(info.name) or [_size(each, real) for each in tensor.shape.dim]
        scaling = {key: how[key] for key in ("scale", "shift") if key in how}
        made[info.name] = make(how["like"], shape, seed, **scaling).astype(dtype)
    return made


def _size(dimension: onnx.TensorShapeProto.Dimension, real: RealBuild) -> int:
    """Of a fixed dimension, or of one that the build fixes by its name."""
    return real.shapes[dimension.dim_param][0] if dimension.dim_param else int(dimension.dim_value)
