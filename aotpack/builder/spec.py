"""What to build: the value that the command line, a build file and Python calls all become."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from aotpack.builder.flex_settings import NOTHING_SAID, FlexSettings
from aotpack.common.paths import name_issue
from aotpack.common.values import check_title
from aotpack.errors import UsageError
from aotpack.selection.custom_ops import checked_libraries
from aotpack.selection.policy import check_share
from aotpack.selection.shapes import checked_shapes, parse_shape
from aotpack.targets.catalogue import Precision

__all__ = [
    "MAX_SECONDS",
    "BuildSpec",
    "ComponentSpec",
    "Constant",
    "Limits",
    "TargetSpec",
    "check_tolerances",
    "parse_constants",
    "parse_shapes",
    "parse_tolerances",
]


#: Of a time limit: a year. What a thread can wait for has an end.
MAX_SECONDS = 366 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one worker process may take."""

    #: Seconds. Some real models keep a vendor's compiler busy for minutes.
    seconds: float = 900.0
    #: Bytes of resident memory of the worker and its children; None: no limit.
    memory: int | None = None

    def __post_init__(self) -> None:
        # Not `<= 0`: a limit that is no number would never be reached, nor can one wait for it.
        if not 0 < self.seconds <= MAX_SECONDS:
            raise UsageError(
                "is no time limit",
                found=f"{self.seconds:g}",
                expected=f"more than 0 and at most {MAX_SECONDS} seconds",
            )
        if self.memory is not None and not self.memory > 0:
            raise UsageError("is no memory limit", found=self.memory, expected="more than 0 bytes")


#: What an input can be fixed to.
Constant = bool | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSpec:
    """One model of a package."""

    name: str
    model: Path
    #: Input name to its shape, or symbolic dimension to its one size.
    shapes: Mapping[str, tuple[int, ...]]
    #: Input name to the value that all of its elements have: it is no input any more.
    constants: Mapping[str, Constant] = field(default_factory=dict)
    kind: Literal["model", "flex-attention"] = "model"
    #: Inputs that its variants are compared on: ``.npz`` files, or folders of them; none: they are made up.
    inputs: tuple[Path, ...] = ()
    #: Of the lowering of its FlexAttention nodes.
    flex: FlexSettings = NOTHING_SAID
    #: Key, such as ``shapes.input``, to where in a file it was said, for errors.
    places: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", checked_shapes(self.shapes, self.places, what="--shape"))
        self.flex.checked(self.places.get("flex", "flex"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """One target of a build, and what is different from what the catalogue says of it."""

    #: From the catalogue, an alias, or a name that a toolchain makes a target of.
    target: str
    #: What the variants' target is called; None: as in the catalogue. A second of the same target needs it.
    name: str | None = None
    #: Provider options, added to those of the catalogue.
    options: Mapping[str, str] = field(default_factory=dict)
    #: What to compute in; None: as the catalogue says.
    precision: Precision | None = None
    #: As `ComponentSpec.shapes`, for this target alone: added to those of each component that has such an
    #: input or dimension, in place of those of the same name.
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    #: Of the lowering of FlexAttention for it, in place of those of a component. Not `masked_rows`: what a
    #: component computes is the same for all targets.
    flex: FlexSettings = NOTHING_SAID
    #: The largest error; None: that of the build.
    tolerance: float | None = None
    #: Output to its own largest error.
    tolerances: Mapping[str, float] = field(default_factory=dict)
    #: Whether variants are run and compared; None: as the build says.
    check: bool | None = None
    #: Only these components; None: all.
    components: tuple[str, ...] | None = None
    #: Store the weights that components have in common once on the device.
    share_weights: bool = False
    #: Key, such as ``options.vtcm_mb``, to where in a file it was said, for errors.
    places: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", checked_shapes(self.shapes, self.places, what="--shape"))
        where = self.places.get("flex", f"target {self.name or self.target}, flex")
        if self.flex.checked(where).masked_rows is not None:
            raise UsageError(
                "has masked_rows, which is what a model computes", where=where, hint="say it of the component"
            )
        check_tolerances(self.tolerance, self.tolerances, self.places.get("tolerance"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """A package to build."""

    name: str
    output: Path
    components: tuple[ComponentSpec, ...]
    targets: tuple[TargetSpec, ...]
    version: str = "0"
    #: SPDX expression.
    license: str | None = None
    #: Add the untouched ONNX as a variant of its own.
    portable: bool = True
    #: The largest error that a variant may have; None: by the target's precision.
    tolerance: float | None = None
    #: Output to its own largest error.
    tolerances: Mapping[str, float] = field(default_factory=dict)
    #: Run variants that can run here, and compare them with the portable model.
    check: bool = True
    #: The least share of a model's nodes that an EP has to compile, 0 to 1; None: any.
    min_compiled: float | None = None
    limits: Limits = Limits()
    #: Workers at once; None: as many as cores and memory allow.
    jobs: int | None = None
    #: Take results of earlier builds, and keep those of this one.
    reuse: bool = True
    #: zstd level for segments that shrink by it; None: store all of them raw.
    compress: int | None = 3
    #: Replace a file at `output` that is not a package, too.
    force: bool = False
    #: Libraries of custom operators, which are no part of the package.
    custom_ops: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "custom_ops", checked_libraries(self.custom_ops))
        check_title(name=self.name, version=self.version, license_=self.license)
        for kind, names in (
            ("component", [component.name for component in self.components]),
            ("target", [target.name for target in self.targets]),
        ):
            for name in names:
                if name is not None and (issue := name_issue(name)) is not None:
                    raise UsageError(issue, where=f"name of the {kind}", expected="another name")
        check_tolerances(self.tolerance, self.tolerances)
        if self.min_compiled is not None:
            check_share("min_compiled", self.min_compiled)


def check_tolerances(
    tolerance: float | None, of_outputs: Mapping[str, float], where: str | None = None
) -> None:
    """Refuse what is no largest error: nothing is larger than NaN or an infinity, so all would pass.

    Raises:
        UsageError: one is negative or not finite.
    """
    for output, value in ((None, tolerance), *of_outputs.items()):
        if value is not None and not 0 <= value < math.inf:
            place = where or (None if output is None else f"output {output!r}")
            raise UsageError("is no tolerance", where=place, found=f"{value:g}", expected="0 or more")


def parse_tolerances(texts: Iterable[str]) -> tuple[float | None, dict[str, float]]:
    """Read ``0.01``, for all outputs, and ``OUTPUT=0.01``.

    Raises:
        UsageError: a text is of another form, or one is given twice.
    """
    overall: float | None = None
    outputs: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            tolerance = float(value)
        except ValueError:
            raise UsageError(
                "is not a tolerance",
                where=f"--tolerance {text}",
                expected="VALUE or OUTPUT=VALUE such as logits=0.05",
            ) from None
        if name in outputs or (not name and overall is not None):
            raise UsageError("is given twice", where=f"--tolerance {text}")
        if name:
            outputs[name] = tolerance
        else:
            overall = tolerance
    return overall, outputs


_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


def parse_constants(texts: Iterable[str]) -> dict[str, Constant]:
    """Read ``NAME=16000``, ``NAME=0.5`` and ``NAME=true``.

    Raises:
        UsageError: a text is of another form, or a name occurs twice.
    """
    constants: dict[str, Constant] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            if not name or not equals:
                raise ValueError
            read = {"true": True, "false": False}.get(value)
            constant = read if read is not None else int(value) if _INTEGER.fullmatch(value) else float(value)
        except ValueError:
            raise UsageError(
                "is not a constant", where=f"--constant {text}", expected="NAME=VALUE such as sr=16000"
            ) from None
        if name in constants:
            raise UsageError("is given twice", where=f"--constant {name}")
        constants[name] = constant
    return constants


def parse_shapes(
    texts: Iterable[str], targets: Collection[str]
) -> tuple[dict[str, tuple[int, ...]], dict[str, dict[str, tuple[int, ...]]]]:
    """Read shapes as `parse_shape` does, and ``TARGET:NAME=SIZES`` for one target alone.

    What stands before the first colon is a target only if it is one of `targets`: names of inputs, such as
    ``input:0``, have colons too.

    Returns:
        The shapes for all targets, and those for one alone by its name.

    Raises:
        As `parse_shape`.
    """
    common: list[str] = []
    own: dict[str, list[str]] = {}
    for text in texts:
        target, colon, shape = text.partition(":")
        if colon and target in targets:
            own.setdefault(target, []).append(shape)
        else:
            common.append(text)
    return parse_shape(common), {target: parse_shape(shapes) for target, shapes in own.items()}
