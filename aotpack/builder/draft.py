"""A first build file for a model: what was found in it, as a text to go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from aotpack.builder.model import open_dimensions, read_graph, read_model
from aotpack.manifest import TensorInfo
from aotpack.target import PORTABLE, Target

__all__ = ["draft"]


def draft(model: Path, *, name: str, folder: Path, targets: Iterable[Target]) -> str:
    """A build file for one model, as TOML.

    Args:
        model: the ONNX model.
        name: of the package.
        folder: where the file will be, for the path of the model.
        targets: those that can be compiled for; each is listed, those that run here uncommented.

    Raises:
        ModelError: it cannot be read.
    """
    source = read_model(model)
    graph = read_graph(model)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in source.source.opsets.items())
    lines = [
        _comment(f"{model.name}: {source.nodes} nodes, {source.source.size:,} bytes, opset {opsets}."),
        *(_comment(f"  in  {info.name}: {info.dtype} {_sizes(info.shape)}") for info in source.inputs),
        *(_comment(f"  out {info.name}: {info.dtype} {_sizes(info.shape)}") for info in source.outputs),
        f"name = {_quoted(name)}",
        'version = "0"',
        "",
        "[[component]]",
        'name = "main"',
        f"model = {_quoted(Path(os.path.relpath(model, folder)).as_posix())}",
    ]
    if open_dimensions(graph):
        lines += [
            "# Most NPUs and GPUs need every size; 1 is a guess. Buckets are sets of sizes to build for.",
            f"shapes = {{ {', '.join(_guesses(source.inputs))} }}",
        ]
    for target in targets:
        if target.name != PORTABLE:
            lines += ["", _comment(target.title), "[[target]]", f"target = {_quoted(target.name)}"]
    return "\n".join(lines) + "\n"


def _guesses(inputs: Iterable[TensorInfo]) -> list[str]:
    guesses: dict[str, str] = {}
    for info in inputs:
        shape = info.shape or ()
        if any(size is None for size in shape):
            guesses[info.name] = str([size if isinstance(size, int) else 1 for size in shape])
        else:
            guesses |= {size: "1" for size in shape if isinstance(size, str)}
    return [f"{_quoted(name)} = {value}" for name, value in guesses.items()]


def _quoted(text: str) -> str:
    """`text` as a TOML string: JSON's rules, but that all of Unicode stands for itself and DEL does not."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    # What a model calls its inputs must not get out of the comment and say something.
    return "# " + "".join(letter if letter.isprintable() else "?" for letter in text)


def _sizes(shape: tuple[int | str | None, ...] | None) -> str:
    if shape is None:
        return "of any rank"
    return "x".join("?" if size is None else str(size) for size in shape) or "scalar"
