"""Texts, numbers and lists of the manifest are longer than docs/format.md allows: each of them in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aotpack import errors
from tests.attacks.forge import Forgery
from tests.attacks.lie import refused

LONG = "x" * 65_537
ONE_MORE = 2**53

_NUMERICS = {"max_abs": 0.0, "error": 0.0, "tolerance": 0.0, "ran_on": "host"}
_FLEX = {"node": "n", "lowering": "dense", "blocks_skipped": 0.0, "why": "w"}
_COVERAGE = {"nodes": 1, "compiled": 1, "partitions": 1}
_TENSOR = {"name": "x", "dtype": "float32", "shape": [1]}

#: What is set in the package, in its component or in its variant, and the place that the error names.
_VALUES: dict[str, tuple[str, dict[str, Any], str]] = {
    "version": ("package", {"version": LONG}, "version"),
    "license": ("package", {"license": LONG}, "license"),
    "opset_domain": ("component", {"source": {"opsets": {LONG: 1}}}, "source.opsets"),
    "opset": ("component", {"source": {"opsets": {"": ONE_MORE}}}, "source.opsets"),
    "input_name": ("component", {"inputs": [_TENSOR | {"name": LONG}]}, "inputs"),
    "input_dtype": ("component", {"inputs": [_TENSOR | {"dtype": LONG}]}, "inputs"),
    "input_size_name": ("component", {"inputs": [_TENSOR | {"shape": [LONG]}]}, "shape"),
    "input_size": ("component", {"inputs": [_TENSOR | {"shape": [ONE_MORE]}]}, "shape"),
    "input_size_below_all": ("component", {"inputs": [_TENSOR | {"shape": [-ONE_MORE]}]}, "shape"),
    "input_rank": ("component", {"inputs": [_TENSOR | {"shape": [1] * 65}]}, "shape"),
    "inputs": ("component", {"inputs": [_TENSOR] * 65_537}, "inputs"),
    "outputs": ("component", {"outputs": [_TENSOR] * 65_537}, "outputs"),
    "ep": ("variant", {"ep": LONG}, "ep"),
    "precision": ("variant", {"precision": LONG}, "precision"),
    "specificity": ("variant", {"specificity": ONE_MORE}, "specificity"),
    "ep_string": ("variant", {"compatibility": {"ep_string": LONG}}, "ep_string"),
    "os": ("variant", {"compatibility": {"requires": {"os": [LONG]}}}, "os"),
    "arch": ("variant", {"compatibility": {"requires": {"arch": LONG}}}, "arch"),
    "isa": ("variant", {"compatibility": {"requires": {"isa": [LONG]}}}, "isa"),
    "isa_count": ("variant", {"compatibility": {"requires": {"isa": ["avx"] * 1025}}}, "isa"),
    "os_count": ("variant", {"compatibility": {"requires": {"os": ["linux"] * 1025}}}, "os"),
    "onnxruntime": ("variant", {"compatibility": {"requires": {"onnxruntime": LONG}}}, "onnxruntime"),
    "ep_version": ("variant", {"compatibility": {"requires": {"ep": LONG}}}, "requires.ep"),
    "option": ("variant", {"session": {"provider_options": {"k": LONG}}}, "provider_options"),
    "option_name": ("variant", {"session": {"provider_options": {LONG: "v"}}}, "provider_options"),
    "config": ("variant", {"session": {"config": {"k": LONG}}}, "config"),
    "config_name": ("variant", {"session": {"config": {LONG: "v"}}}, "config"),
    "built_with": ("variant", {"built_with": {"k": LONG}}, "built_with"),
    "built_with_name": ("variant", {"built_with": {LONG: "1"}}, "built_with"),
    "left_on_cpu": ("variant", {"coverage": _COVERAGE | {"left_on_cpu": {LONG: 1}}}, "left_on_cpu"),
    "ran_on": ("variant", {"numerics": _NUMERICS | {"ran_on": LONG}}, "ran_on"),
    "flex_node": ("variant", {"flex": [_FLEX | {"node": LONG}]}, "flex"),
    "flex_lowering": ("variant", {"flex": [_FLEX | {"lowering": LONG}]}, "flex"),
    "flex_why": ("variant", {"flex": [_FLEX | {"why": LONG}]}, "flex"),
}


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            into[key] |= value
        else:
            into[key] = value


def _lie(name: str, owner: str, values: dict[str, Any]) -> Callable[[Forgery], None]:
    def tell(it: Forgery) -> None:
        component = it.manifest["components"][0]
        _merge({"package": it.manifest, "component": component, "variant": it.variant}[owner], values)
        # Its place is taken.
        it.body = b""

    tell.__name__ = f"too_much_{name}"
    return tell


#: Those that are numbers, or stand where a number may.
_NUMBERS = {"opset", "input_size", "input_size_below_all", "specificity"}

for _name, (_owner, _given, _where) in _VALUES.items():
    _error = errors.ManifestError if _name in _NUMBERS else errors.LimitExceeded
    _said = "Expected `int` (<=|>=)" if _name in _NUMBERS else "of length <= [0-9]+"
    refused(_error, f"{_where}.*({_said})")(_lie(_name, _owner, _given))
