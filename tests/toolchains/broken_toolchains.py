"""Third parties' toolchains, each broken in its own way: `SOURCES` cannot be made, `METHODS` fail later.

Each becomes a module and a distribution of its own, found through its entry point as any third party's.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ATTRIBUTES", "BUILDING", "METHODS", "SOURCES", "ep_of", "install", "whole"]

_WHOLE = """
from aotpack.machine.profile import Devices
from aotpack.manifest.values import Variant
from aotpack.targets.catalogue import Target
from aotpack.toolchains.base import Compiled, RunsHere, Toolchain
from aotpack.selection.verdict import Code, Grade, Verdict


class Made(Toolchain):
    name = "NAME"
    ep = "NAME-ExecutionProvider"

    def version(self):
        return "1.0"

    def pip_command(self):
        return "pip install NAME"

    def how_to_run(self, target, machine):
        return RunsHere("host")

    def compile(self, target, model, folder):
        raise RuntimeError("never")

    def judge(self, variant, machine, *, emulate):
        return Verdict(Grade.OPTIMAL, Code.FITS, "It fits.")

    def add_provider(self, options, variant, *, emulate):
        pass

    def ask(self, ep_string, device):
        return Grade.OPTIMAL

"""

#: Modules that give no toolchain. The entry point names ``Made`` in them.
SOURCES: dict[str, str] = {
    "no-import": "import a_module_that_nobody_has",
    "nothing-named": "",
    "syntax-error": "class Made(",
    "no-such-name": "made = None",
    "exits": "import sys; sys.exit(3)",
    "raises-past-exception": "class Panic(BaseException): pass\nraise Panic('rust')",
    "is-none": "Made = None",
    "gives-none": "def Made(): return None",
    "is-a-dict": "Made = {'name': 'is-a-dict'}",
    "another-class": "class Made:\n    name = 'another-class'\n    ep = 'x'\n    environment = ()",
    "wants-arguments": _WHOLE + "    def __init__(self, more): pass",
    "init-raises": _WHOLE + "    def __init__(self): raise OSError('no licence')",
    "nothing-defined": (
        "from aotpack.toolchains.base import Toolchain\nclass Made(Toolchain):\n    name = ep = 'x'"
    ),
    "error-without-text": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\n"
        "class Made:\n    def __init__(self): raise Odd"
    ),
    "asks-for-all": (
        _WHOLE
        + "    def __init__(self):\n        from aotpack.toolchains import toolchains\n        toolchains()"
    ),
    "no-abstract-name": _WHOLE.replace('    name = "NAME"\n', ""),
}

#: Of whole toolchains: attributes that are none.
ATTRIBUTES: dict[str, str] = {
    "name-is-none": "name = None",
    "name-is-a-path": "name = '../ort'",
    "name-of-ours": "name = 'ort'",
    "name-raises": "@property\n    def name(self): raise KeyError('name')",
    "ep-is-a-number": "ep = 3",
    "environment-is-none": "environment = None",
    "environment-is-a-text": "environment = 'PATH'",
    "environment-has-no-names": "environment = ('A=B',)",
    "options-are-a-list": "package_options = ['a']",
    "options-without-form": "package_options = {'a': 'free text'}",
    "widens-is-none": "widens = None",
    "attributes-are-a-list": "ep_context_attributes = ['a']",
    "fixed-shapes-is-a-text": "needs_fixed_shapes = 'no'",
}

#: Of whole toolchains: methods that raise, or give something else than they should.
METHODS: dict[str, str] = {
    "version-raises": "def version(self): raise RuntimeError('no driver')",
    "version-is-a-number": "def version(self): return 1.0",
    "version-without-end": "def version(self): return '1' * 100_000",
    "version-is-no-text": "def version(self): return '\\udc80'",
    "details-are-none": "def runtime_details(self): return None",
    "details-raise": "def runtime_details(self): raise OSError('gone')",
    "details-have-numbers": "def runtime_details(self): return {'a': 1}",
    "identify-raises": "def identify(self, devices, system): raise LookupError('pci')",
    "identify-gives-none": "def identify(self, devices, system): pass",
    "identify-gives-a-dict": "def identify(self, devices, system): return Devices({}, {})",
    "looks-at-raises": "def looks_at(self, variant): raise AttributeError('x')",
    "looks-at-gives-a-list": "def looks_at(self, variant): return [variant.id]",
    "judge-raises": "def judge(self, variant, machine, *, emulate): return 1 / 0",
    "judge-exits": "def judge(self, variant, machine, *, emulate): raise SystemExit(1)",
    "judge-gives-none": "def judge(self, variant, machine, *, emulate): pass",
    "judge-gives-a-text": "def judge(self, variant, machine, *, emulate): return 'OPTIMAL'",
    "judge-takes-less": "def judge(self, variant): pass",
    "judge-without-grade": (
        "def judge(self, variant, machine, *, emulate): return Verdict('OPTIMAL', 'fits', 'It fits.')"
    ),
    "judge-raises-for-the-last": (
        "def judge(self, variant, machine, *, emulate):\n"
        "        if variant.id.endswith('-last'): raise RuntimeError('the last')\n"
        "        return Verdict(Grade.OPTIMAL, Code.FITS, 'It fits.')"
    ),
    "judge-without-end": (
        "def judge(self, variant, machine, *, emulate): return self.judge(variant, machine, emulate=emulate)"
    ),
    "ask-raises": "def ask(self, ep_string, device): raise RuntimeError('dlopen')",
    "ask-gives-a-text": "def ask(self, ep_string, device): return 'OPTIMAL'",
    "pip-command-raises": (
        "def version(self): return None\n    def pip_command(self): raise RuntimeError('which pip')"
    ),
    "pip-command-gives-none": ("def version(self): return None\n    def pip_command(self): pass"),
    "add-provider-raises": (
        "def add_provider(self, options, variant, *, emulate): raise RuntimeError('no such library')"
    ),
    "add-provider-blames-the-user": (
        "def add_provider(self, options, variant, *, emulate):\n"
        "        from aotpack.errors import UsageError\n"
        "        raise UsageError('nonsense')"
    ),
}


#: Of whole toolchains: methods that building asks, with what is said of each.
BUILDING: dict[str, tuple[str, str]] = {
    "requirements-raise": ("def requirements(self, target): return target.nothing", "AttributeError"),
    "requirements-are-none": ("def requirements(self, target): pass", "gave a NoneType"),
    "requirements-exit": ("def requirements(self, target): raise SystemExit(0)", "SystemExit"),
    "settings-are-none": ("def session_settings(self, target): pass", "gave a NoneType"),
    "built-with-is-a-list": ("def built_with(self): return ['onnx']", "raised ValueError"),
    "built-with-has-numbers": ("def built_with(self): return {'onnx': 1.2}", "a mapping of str to str"),
    "precision-raises": ("def with_precision(self, target, precision): return {}[precision]", "KeyError"),
    "widened-is-none": ("def widened(self, types): pass", "gave a NoneType"),
    "option-issue-is-false": ("def option_issue(self, name, value): return False", "gave a bool"),
    "remarks-are-none": ("def remarks(self, log): pass", "gave a NoneType"),
    "capabilities-raise": ("def flex_capabilities(self, target): import nothing_like_that", "ModuleNotFound"),
    "why-not-raises": (
        "def why_not_compile(self, target, machine): raise RuntimeError('no licence')",
        "no lic",
    ),
    "why-not-exits": ("def why_not_compile(self, target, machine): raise SystemExit('bye')", "bye"),
    "why-not-is-false": ("def why_not_compile(self, target, machine): return False", "gave no reason"),
    "how-to-run-raises": ("def how_to_run(self, target, machine): raise OSError('no bus')", "no bus"),
    "how-to-run-is-none": ("def how_to_run(self, target, machine): pass", "does not say"),
}


def install(folder: Path, names: dict[str, str], *, points_to: str | None = None) -> None:
    """Put a distribution with an entry point into `folder` for each name, with the source of its module.

    The entry points name the class in it, or whatever `points_to` says.
    """
    for name, source in names.items():
        module = f"broken_{name.replace('-', '_')}"
        (folder / f"{module}.py").write_text(source.replace("NAME", name), encoding="utf-8")
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: acme-{name}\nVersion: 1.0\n")
        named = f"{module}:Made" if points_to is None else points_to
        (info / "entry_points.txt").write_text(f"[aotpack.toolchains]\n{name} = {named}\n")


def ep_of(name: str) -> str:
    """The EP of one of them, which no other toolchain has."""
    return f"{name}-ExecutionProvider"


def whole(change: str) -> str:
    """The source of a toolchain in which one thing is different."""
    return f"{_WHOLE}    {change}\n"
