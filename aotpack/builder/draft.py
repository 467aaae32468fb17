"""A first build file for a model: what was found in it, as a text to go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from aotpack.builder.guess import Guess
from aotpack.builder.models.model import read_model
from aotpack.errors import UsageError
from aotpack.targets.catalogue import PORTABLE, Target

__all__ = ["draft"]


def draft(
    model: Path,
    guess: Guess,
    *,
    name: str,
    folder: Path,
    targets: Iterable[Target],
    custom_ops: Iterable[Path] = (),
) -> str:
    """A build file for one model, as TOML.

    Args:
        model: the ONNX model.
        guess: what it leaves open.
        name: of the package.
        folder: where the file will be, for the path of the model.
        targets: those to list.
        custom_ops: libraries of its custom operators.

    Raises:
        ModelError: it cannot be read.
        UsageError: its path is not UTF-8, as a build file is.
    """
    source = read_model(model)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in source.source.opsets.items())
    libraries = [_quoted(_relative(each, folder)) for each in custom_ops]
    lines = [
        _comment(f"{model.name}: {source.nodes} nodes, {source.source.size:,} bytes, opset {opsets}."),
        *(_comment(f"  in  {info.name}: {info.dtype} {_sizes(info.shape)}") for info in source.inputs),
        *(_comment(f"  out {info.name}: {info.dtype} {_sizes(info.shape)}") for info in source.outputs),
        f"name = {_quoted(name)}",
        'version = "0"',
        *([f"custom_ops = [{', '.join(libraries)}]"] if libraries else []),
        "",
        "[[component]]",
        'name = "main"',
        f"model = {_quoted(_relative(model, folder))}",
    ]
    if guess.constants:
        lines += [
            "# It holds a network for each value: this chooses one, and is no input of the variants then.",
            _table("constants", {name: str(value) for name, value in guess.constants.items()}),
        ]
    if guess.shapes:
        tried = (
            ("these it runs with" if guess.why else "the first that it runs with")
            if guess.runs
            else "a guess, and it did not run with it: mend it"
        )
        lines += [
            f"# Most NPUs and GPUs need every size: {tried}. Buckets are sets of sizes to build for.",
            *(_comment(f"Guessed: {each}.") for each in guess.why),
            _table("shapes", {name: _written(shape) for name, shape in guess.shapes.items()}),
        ]
    for target in targets:
        if target.name != PORTABLE:
            lines += ["", _comment(target.title), "[[target]]", f"target = {_quoted(target.name)}"]
    return "\n".join(lines) + "\n"


def _relative(path: Path, folder: Path) -> str:
    text = Path(os.path.relpath(path, folder)).as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            "has a name that is not UTF-8, which no build file can hold", where=path, hint="rename it"
        ) from None
    return text


def _table(name: str, values: Mapping[str, str]) -> str:
    return f"{name} = {{ {', '.join(f'{_quoted(key)} = {value}' for key, value in values.items())} }}"


def _written(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) != 1 else str(shape[0])


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
