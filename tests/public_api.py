"""The public API as text: names and signatures of what users import and type.

::

    python -m tests.public_api            # print it
    python -m tests.public_api --write    # write tests/public_api.txt anew

docs/stability.md says what may change in it, and when.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

__all__ = ["SNAPSHOT", "public_api"]

SNAPSHOT = Path(__file__).with_suffix(".txt")

#: (module, names; None: all that it says are public). What third parties derive from is in it, too.
_MODULES: tuple[tuple[str, tuple[str, ...] | None], ...] = (
    ("aotpack", None),
    ("aotpack.errors", None),
    ("aotpack.testing", None),
    ("aotpack.toolchains.base", None),
    ("aotpack.selection.settings", None),
    ("aotpack.flex", None),
)


def public_api() -> str:
    """One line for each name, parameter, field and option."""
    lines = []
    for module, names in _MODULES:
        lines += [f"# {module}", ""]
        imported = import_module(module)
        public = {name: getattr(imported, name) for name in sorted(names or imported.__all__)}
        for name, item in public.items():
            lines += _told(name, item, [each for each in public.values() if each is not item])
        lines.append("")
    lines += ["# aotpack, the command line", ""]
    for verb, command in _commands():
        options = sorted(_option(each) for each in command.params if each.param_type_name == "option")
        arguments = [_argument(each) for each in command.params if each.param_type_name == "argument"]
        lines += [" ".join(["aotpack", verb, *arguments]), *(f"    {each}" for each in options)]
    return "\n".join(lines) + "\n"


def _told(name: str, item: Any, others: Sequence[Any]) -> Iterator[str]:
    if inspect.isclass(item):
        yield f"class {name}({', '.join(base.__name__ for base in item.__bases__)})"
        yield from (f"    {line}" for line in _members(item, others))
    elif inspect.isroutine(item):
        yield from _function(name, item)
    else:
        yield f"{name}: {type(item).__name__}"


def _members(cls: type, others: Sequence[Any]) -> list[str]:
    """What a class has of ours: fields, properties, methods.

    Not what pydantic and the like give it, nor what it has from one of `others`, which say it themselves.
    """
    if issubclass(cls, enum.Enum):
        return [f"{each.name} = {each.value!r}" for each in cls]
    found: dict[str, list[str]] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("aotpack") or base in others:
            continue
        # The fields of a dataclass are what its constructor takes.
        if not dataclasses.is_dataclass(base):
            for name, annotation in inspect.get_annotations(base).items():
                found[name] = [f"{name}: {annotation}"]
        for name, value in vars(base).items():
            if isinstance(value, property):
                found[name] = [f"{name}: {_returns(value)}, read only"]
            elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
                function = getattr(value, "__func__", value)
                if function.__module__.startswith("aotpack"):
                    found[name] = [*_function(name, function)]
    shown = [lines for name, lines in sorted(found.items()) if name == "__init__" or not name.startswith("_")]
    return [line for lines in shown for line in lines]


def _returns(item: property) -> object:
    return inspect.get_annotations(item.fget).get("return", "Any") if item.fget else "Any"


def _function(name: str, function: Any) -> Iterator[str]:
    """A function: a line, and one for each parameter that has to be named."""
    signature = inspect.signature(function)
    named = [each for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]
    others = [each for each in signature.parameters.values() if each.kind is not each.KEYWORD_ONLY]
    given = ["self" if each.name == "self" else _formatted(each) for each in others]
    result = "" if signature.return_annotation is signature.empty else f" -> {signature.return_annotation}"
    yield f"def {name}({', '.join(given)}){result}"
    for each in sorted(named, key=lambda each: each.name):
        yield f"    {_formatted(each)}"


def _formatted(parameter: inspect.Parameter) -> str:
    stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
    annotation = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
    default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
    return f"{stars}{parameter.name}{annotation}{default}"


def _default(value: object) -> str:
    # The text of some defaults holds an address in memory, or all that a value has.
    plain = isinstance(value, bool | int | float | str | tuple | None)
    return repr(value) if plain else "..."


def _commands() -> Iterator[tuple[str, Any]]:
    from aotpack.cli import _VERBS, app

    group = typer.main.get_command(app)
    yield "[OPTIONS]", group
    context = typer.Context(group)
    for verb in sorted(_VERBS):
        command = group.get_command(context, verb)  # type: ignore[attr-defined]
        nested = getattr(command, "commands", {})
        yield from ((f"{verb} {name}", each) for name, each in sorted(nested.items()))
        if not nested:
            yield verb, command


def _argument(parameter: Any) -> str:
    name = f"{parameter.name.upper()}{'...' if parameter.nargs != 1 else ''}"
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> str:
    names = ", ".join(
        sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: (len(name), name))
    )
    kind = "" if parameter.is_flag or parameter.count else f" {parameter.metavar or 'VALUE'}"
    marks = [
        mark for mark, has in (("required", parameter.required), ("repeatable", parameter.multiple)) if has
    ]
    return f"{names}{kind}{''.join(f', {mark}' for mark in marks)}"


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.public_api")
    parser.add_argument("--write", action="store_true", help="write the file that the tests compare with")
    if parser.parse_args().write:
        SNAPSHOT.write_text(public_api(), encoding="utf-8")
    else:
        print(public_api(), end="")


if __name__ == "__main__":
    _main()
