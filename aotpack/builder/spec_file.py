"""Build files: a package's spec as TOML (schemas/build-file.schema.json; docs/building.md).

::

    name = "vad"

    [[component]]
    name = "main"
    model = "vad.onnx"
    shapes = { input = [1, 576] }

    [[target]]
    target = "ort-cpu"

Paths are relative to the file. An error names the line, the key and, for a key that does not exist, the
nearest ones that do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from unicodedata import category

from aotpack.extras import require

require("build")

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from aotpack._text import BIDI_CONTROLS
from aotpack.builder.flex_settings import FlexSettings
from aotpack.builder.spec import BuildSpec, ComponentSpec, Limits, TargetSpec
from aotpack.builder.toml_places import TomlPlaces, parse_toml
from aotpack.common.values import MAX_INTEGER, MAX_KEYS, MAX_TITLE, NAME_PATTERN, NAME_RULE
from aotpack.errors import UsageError
from aotpack.files.input import read_input
from aotpack.manifest.values import MAX_COMPONENTS, MAX_VARIANTS
from aotpack.selection.custom_ops import checked_libraries
from aotpack.selection.shapes import MAX_DIMENSION
from aotpack.targets.catalogue import Precision

__all__ = ["BuildFile", "ComponentTable", "FlexTable", "LimitsTable", "TargetTable", "read_build_file"]

#: Bytes. A build file of a hundred components is below 100 KiB.
MAX_SIZE = 1024 * 1024
#: Characters of the name of an input, a dimension or an option, and of the value of an option that is a text.
MAX_TEXT = 65536
#: Characters of a path. No system takes longer ones.
MAX_FILE_PATH = 4096
#: Of one component; each is compiled for every target.
MAX_BUCKETS = 256
#: What a session's options, and tensors of integers, hold.
_INT64 = 2**63


def _no_controls(text: str) -> str:
    """`text`, if a terminal, a log and a file system show and take it as it is."""
    if any(category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in BIDI_CONTROLS for letter in text):
        raise PydanticCustomError("control", "a path without control characters")
    return text


_Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_Text = Annotated[str, Field(max_length=MAX_TEXT)]
_FilePath = Annotated[str, Field(min_length=1, max_length=MAX_FILE_PATH), AfterValidator(_no_controls)]
_Integer = Annotated[int, Field(ge=-_INT64, lt=_INT64)]
_Size = Annotated[int, Field(ge=1, le=MAX_DIMENSION)]
_Tolerance = (
    Annotated[float, Field(ge=0)]
    | Annotated[dict[_Text, Annotated[float, Field(ge=0)]], Field(max_length=MAX_KEYS)]
)
_Sizes = Annotated[tuple[_Size, ...], Field(max_length=64)]
_Shapes = Annotated[dict[_Text, _Sizes | _Size], Field(max_length=MAX_KEYS)]


def _spdx(text: str) -> str:
    """`text` as SPDX writes it; its length is bounded."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        raise PydanticCustomError(
            "spdx", "an SPDX expression such as Apache-2.0 AND MIT, or LicenseRef-NAME for another license"
        ) from None


def _title(text: str) -> str:
    """`text`, if a terminal can show it."""
    if not text.isprintable():
        raise PydanticCustomError("title", "a text of printable characters")
    return text


_Count = Annotated[int, Field(ge=1, le=MAX_DIMENSION)]


class _Table(BaseModel):
    """A table of a build file, as pydantic checks it: its errors name each key that is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TargetFlexTable(_Table):
    """``flex`` of a ``[[target]]``: how FlexAttention is lowered for it (docs/flex.md)."""

    #: ``function``, ``dense``, ``block-sparse`` or ``fused``; by default what costs least.
    lowering: Annotated[str, Field(max_length=MAX_TITLE)] | None = None
    #: Queries and keys a block; by default what costs least.
    block: tuple[_Count, _Count] | None = None
    #: Heads of K and V a tile, a divisor of all; by default what costs least.
    kv_heads: _Count | None = None


class FlexTable(TargetFlexTable):
    """``flex`` of a ``[[component]]``: the same for all targets, and what rows without a key give."""

    #: ``nan``, as in ONNX, or ``zeros``, as in PyTorch.
    masked_rows: Annotated[str, Field(max_length=MAX_TITLE)] | None = None


class ComponentTable(_Table):
    """``[[component]]``: one model of the package."""

    name: _Name
    #: Path of the ONNX model.
    model: _FilePath
    #: Input name to its shape, or symbolic dimension to its one size.
    shapes: _Shapes = Field(default={})
    #: Input name to the value that it always has: it is no input of the variants then.
    constants: dict[_Text, bool | _Integer | float] = Field(default={}, max_length=MAX_KEYS)
    #: Inputs that variants are compared on: an .npz file of arrays by input name, a folder of such, or
    #: several.
    inputs: _FilePath | Annotated[tuple[_FilePath, ...], Field(max_length=MAX_KEYS)] = ()
    #: How its FlexAttention nodes are lowered.
    flex: FlexTable = FlexTable()
    #: Name to shapes, each of which becomes a component ``<component>.<name>``.
    buckets: dict[_Name, _Shapes] = Field(default={}, max_length=MAX_BUCKETS)


class TargetTable(_Table):
    """``[[target]]``: what to compile for, and what is different from the catalogue."""

    #: From `aotpack targets`, or a set that its toolchain knows.
    target: Annotated[str, Field(max_length=MAX_TITLE)]
    #: Needed where two tables have the same target.
    name: _Name | None = None
    #: Provider options, added to those of the catalogue.
    options: dict[_Text, _Text | _Integer | bool] = Field(default={}, max_length=MAX_KEYS)
    precision: Precision | None = None
    #: As a component's, for this target alone, in place of theirs of the same name.
    shapes: _Shapes = Field(default={})
    #: The largest error, on the scale of the report; or output to its own.
    tolerance: _Tolerance | None = None
    #: Run variants that can run here, and compare them with the portable model; by default as the file says.
    check: bool | None = None
    #: As a component's, in place of theirs.
    flex: TargetFlexTable = TargetFlexTable()
    #: By default all.
    components: Annotated[tuple[_Name, ...], Field(max_length=MAX_COMPONENTS)] | None = None
    #: Store weights that components have in common once on the device, too.
    share_weights: bool = False


class LimitsTable(_Table):
    """``[limits]``: of one worker process."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    #: Bytes.
    memory: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None


class BuildFile(_Table):
    """A whole build file."""

    #: Of the package.
    name: _Name
    version: Annotated[str, Field(max_length=MAX_TITLE), AfterValidator(_title)] = "0"
    #: Where the package goes; by default the name with ``.aotpack``, beside this file.
    output: _FilePath | None = None
    #: SPDX expression of what the models are licensed under.
    license: Annotated[str, Field(max_length=MAX_TITLE), AfterValidator(_spdx)] | None = None
    #: Add the untouched ONNX.
    portable: bool = True
    #: The largest error of a variant, or output to its own; by default by precision.
    tolerance: _Tolerance | None = None
    #: Run variants that can run here, and compare them with the portable model.
    check: bool = True
    #: The least share of a model's nodes that an EP has to compile.
    min_compiled: Annotated[float, Field(ge=0, le=1)] | None = None
    #: zstd level where it pays; 0: never.
    compress: Annotated[int, Field(ge=0, le=22)] = 3
    #: Libraries of custom operators that the models need; they are no part of the package.
    custom_ops: _FilePath | Annotated[tuple[_FilePath, ...], Field(max_length=MAX_KEYS)] = ()
    limits: LimitsTable = LimitsTable()
    component: Annotated[tuple[ComponentTable, ...], Field(min_length=1, max_length=MAX_COMPONENTS)]
    target: Annotated[tuple[TargetTable, ...], Field(max_length=MAX_VARIANTS)] = ()


def read_build_file(path: Path) -> BuildSpec:
    """Read the build file at `path`.

    Raises:
        UsageError: it cannot be read, is no TOML, or is not what a build file may say.
    """
    data = read_input(path, MAX_SIZE, expected="a build file", error=UsageError)
    tables, places = parse_toml(path, data)
    try:
        parsed = BuildFile.model_validate(values := _with_tuples(tables))
    except ValidationError as error:
        raise _told(error, values, places) from None
    return _spec(parsed, path, places)


def _spec(file: BuildFile, path: Path, places: TomlPlaces) -> BuildSpec:
    components: dict[str, ComponentSpec] = {}
    for index, table in enumerate(file.component):
        for component in _components(table, index, path.parent, places):
            if component.name in components:
                place = places.of(("component", index, "name"))
                raise UsageError(f"two components are called {component.name!r}", where=place)
            components[component.name] = component
            if len(components) > MAX_COMPONENTS:
                raise UsageError("too many components", where=path, expected=f"at most {MAX_COMPONENTS}")
    targets = [
        TargetSpec(
            target=target.target,
            name=target.name,
            options={name: _option(value) for name, value in target.options.items()},
            precision=target.precision,
            shapes=_shapes(target.shapes),
            tolerance=None if isinstance(target.tolerance, dict) else target.tolerance,
            tolerances=target.tolerance if isinstance(target.tolerance, dict) else {},
            check=target.check,
            flex=FlexSettings(**target.flex.model_dump()),
            components=_wanted(target, file, places.of(("target", index, "components"))),
            share_weights=target.share_weights,
            places=_places(target, index, places),
        )
        for index, target in enumerate(file.target)
    ]
    output = path.parent / (file.output or f"{file.name}.aotpack")
    limits = Limits()
    return BuildSpec(
        name=file.name,
        version=file.version,
        license=file.license,
        output=output,
        components=tuple(components.values()),
        targets=tuple(targets),
        portable=file.portable,
        tolerance=None if isinstance(file.tolerance, dict) else file.tolerance,
        tolerances=file.tolerance if isinstance(file.tolerance, dict) else {},
        check=file.check,
        min_compiled=file.min_compiled,
        limits=Limits(seconds=file.limits.seconds or limits.seconds, memory=file.limits.memory),
        compress=file.compress or None,
        custom_ops=_libraries(file, path, places),
    )


def _libraries(file: BuildFile, path: Path, places: TomlPlaces) -> tuple[Path, ...]:
    listed = (file.custom_ops,) if isinstance(file.custom_ops, str) else file.custom_ops
    given = (path.parent / each for each in listed)
    return checked_libraries(given, where=places.of(("custom_ops",)))


def _components(
    table: ComponentTable, index: int, folder: Path, places: TomlPlaces
) -> Iterator[ComponentSpec]:
    own = [
        ("model",),
        *([("inputs",)] if table.inputs else []),
        ("flex",),
        *(("constants", name) for name in table.constants),
    ]
    said = {".".join(key): places.of(("component", index, *key)) for key in own}
    said |= {f"shapes.{name}": places.of(("component", index, "shapes", name)) for name in table.shapes}
    for bucket, shapes in (table.buckets or {"": {}}).items():
        yield ComponentSpec(
            name=f"{table.name}.{bucket}" if bucket else table.name,
            model=folder / table.model,
            shapes={**_shapes(table.shapes), **_shapes(shapes)},
            constants=table.constants,
            inputs=tuple(
                folder / each for each in ((table.inputs,) if isinstance(table.inputs, str) else table.inputs)
            ),
            flex=FlexSettings(**table.flex.model_dump()),
            places=said
            | {f"shapes.{name}": places.of(("component", index, "buckets", bucket, name)) for name in shapes},
        )


def _places(table: TargetTable, index: int, places: TomlPlaces) -> dict[str, str]:
    """Where each key of a target stands that can be wrong in a way that only its toolchain knows."""
    own = ("target", "name", "precision", "share_weights", "flex", "tolerance")
    keys: list[tuple[str, ...]] = [(name,) for name in own if name in table.model_fields_set]
    keys += [("options", name) for name in table.options]
    keys += [("shapes", name) for name in table.shapes]
    return {".".join(key): places.of(("target", index, *key)) for key in keys}


def _wanted(table: TargetTable, file: BuildFile, place: str) -> tuple[str, ...] | None:
    """The components of a target; the name of one with buckets stands for all of them."""
    if table.components is None:
        return None
    wanted: list[str] = []
    by_name = {component.name: component for component in file.component}
    for name in table.components:
        if name in by_name:
            buckets = by_name[name].buckets
            wanted += [f"{name}.{bucket}" for bucket in buckets] if buckets else [name]
            continue
        owner, _, bucket = name.rpartition(".")
        if owner in by_name and bucket in by_name[owner].buckets:
            wanted.append(name)
            continue
        near = difflib.get_close_matches(name, by_name, n=3) or list(by_name)
        raise UsageError(
            f"target {table.target} names the component {name!r}, which does not exist",
            where=place,
            hint=f"did you mean {', '.join(near)}?",
        )
    return tuple(wanted)


def _shapes(shapes: _Shapes) -> Mapping[str, tuple[int, ...]]:
    return {name: (size,) if isinstance(size, int) else size for name, size in shapes.items()}


def _option(value: str | int | bool) -> str:
    # As provider options are written: flags as 0 and 1.
    return str(int(value)) if isinstance(value, bool) else str(value)


def _told(error: ValidationError, tables: object, places: TomlPlaces) -> UsageError:
    issues: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for issue in error.errors(include_url=False, include_context=False):
        loc = issue["loc"] if issue["type"] == "missing" else _within(tables, issue["loc"])
        issues.setdefault(loc, []).append(issue)
    # A list is too short, too, for pydantic where none of its items is right.
    around = {loc[:length] for loc in issues for length in range(len(loc))}
    issues = {loc: each for loc, each in issues.items() if loc not in around}
    # A misspelt key is unknown and leaves another one missing: the first of the two is what to mend.
    loc, (first, *others) = min(issues.items(), key=lambda item: item[1][0]["type"] != "extra_forbidden")
    place = places.of(loc)
    also = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1])[:MAX_TITLE], known, n=3, cutoff=0.5) or known
        return UsageError(f"unknown key{also}", where=place, hint=f"did you mean {', '.join(near)}?")
    if first["type"] == "missing":
        return UsageError(f"is missing{also}", where=place)
    found = repr(first["input"])
    if loc in (("component",), ("target",)):
        expected = f"[[{loc[0]}]] in front of each"
    else:
        expected = " or ".join(dict.fromkeys(map(_expected, (first, *others))))
    return UsageError(
        f"cannot be that{also}", where=place, found=found if len(found) <= 60 else None, expected=expected
    )


def _within(tables: object, loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """`loc` as far as it is in `tables`: pydantic goes on with which of several types it tried."""
    for depth, part in enumerate(loc):
        held = (
            tables
            if isinstance(tables, dict)
            else dict(enumerate(tables))
            if isinstance(tables, tuple)
            else {}
        )
        if part not in held:
            return loc[:depth]
        tables = held[part]
    return loc


#: Pydantic's types of errors to what was expected, in words of TOML.
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "a table",
    "string_pattern_mismatch": NAME_RULE,
    "string_type": "a text in quotes",
    "tuple_type": "a list",
}


def _expected(issue: ErrorDetails) -> str:
    return _EXPECTED.get(issue["type"], issue["msg"].removeprefix("Input should be "))


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    tables: dict[str, type[_Table]] = {
        "component": ComponentTable,
        "target": TargetTable,
        "limits": LimitsTable,
    }
    if loc[2:] == ("flex",):
        return list((FlexTable if loc[0] == "component" else TargetFlexTable).model_fields)
    return list((tables.get(str(loc[0]), BuildFile) if loc else BuildFile).model_fields)


def _with_tuples(value: Any) -> Any:
    """`value` with its lists as tuples: types are strict, and TOML has no tuples."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
