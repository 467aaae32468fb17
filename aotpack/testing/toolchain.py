"""What a toolchain of a third party must be like, as tests that it runs.

Nothing here imports pytest before a test runs; its ``tmp_path`` is used.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from aotpack.machine.profile import Devices, Ep, Gpu, Machine, Npu, find_machine, known
from aotpack.machine.system import System
from aotpack.manifest.values import Compatibility, Requirements, Variant
from aotpack.selection.settings import settings_issue
from aotpack.targets.catalogue import PORTABLE, Target, catalogue
from aotpack.testing._reading import what_is_read
from aotpack.toolchains import contract, toolchains
from aotpack.toolchains.base import RunsHere, Toolchain
from aotpack.toolchains.guarded import unguarded

__all__ = ["ToolchainTests"]

#: Compatibility strings that no EP wrote.
_HOSTILE_STRINGS = (
    "",
    "nonsense",
    "{",
    '{"a": 1}',
    "v2:6:1:2:3",
    "\x00\x1b[31m",
    "模型",
    "-1",
    "9" * 400,
    "../" * 100,
    "A" * 65_536,
)

#: Values that no option of a package may have: what names a file, an address or a library, and what is not
#: the text of the value but means it.
_HOSTILE_VALUES = (
    "",
    " 1",
    "1 ",
    "1\n",
    "1\0",
    "+1",
    "\u0661",
    "/etc/passwd",
    "../model.onnx",
    "C:\\Windows\\x.dll",
    "\\\\host\\share\\x",
    "https://localhost/x",
    "libx.so",
    "9" * 400,
    "{" * 5000,
    '{"CPU": {"CACHE_DIR": "/tmp"}}',
)

#: What may be imported by `load`, `compile`, `ask` and `add_provider` only.
_HEAVY = ("onnxruntime", "onnx", "onnx_ir", "torch", "typer", "rich", "aotpack.builder", "aotpack.cli")

_LOOK = """
import importlib, json, sys
from aotpack.machine.profile import Devices, Machine
from aotpack.machine.system import System
module, name, heavy = json.loads(sys.argv[1])
toolchain = getattr(importlib.import_module(module), name)()
toolchain.name, toolchain.ep, toolchain.environment
toolchain.version(), toolchain.pip_command(), toolchain.runtime_details()
toolchain.identify(Devices((), ()), System())
for target in toolchain.targets():
    toolchain.foreseen(target), toolchain.why_not_compile(target, Machine()), toolchain.requirements(target)
print(json.dumps([each for each in heavy if each in sys.modules]))
"""


class ToolchainTests:
    """Tests of a toolchain. Name the subclass ``Test…`` so that pytest finds it, and define `make`.

    They hold the toolchain to `aotpack.toolchains.base.Toolchain`: what it says of itself is well-formed,
    choosing a variant reads nothing but what it is given and never raises, a package can set nothing that
    names a file, and a small model is built, loaded and run where this machine can.
    """

    #: Compatibility strings as its EP writes them, if it writes any.
    ep_strings: Sequence[str] = ()
    #: It is installed with an entry point; without, nothing is built with it.
    registered: bool = True
    #: Names of the targets to build for; None: the first that this machine can compile for.
    build_for: Sequence[str] | None = None

    def make(self) -> Toolchain:
        """The toolchain to test, made anew."""
        raise NotImplementedError("define make() in the subclass")

    def model(self, folder: Path) -> Path:
        """A small ONNX model in `folder` that its compiler takes; its output must be comparable."""
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        weights = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32) / 4
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["z"])],
            "small",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8])],
            [numpy_helper.from_array(weights, "w")],
        )
        made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
        path = folder / "small.onnx"
        onnx.save(made, path)
        return path

    def targets(self) -> list[Target]:
        """All targets of the toolchain, those of the built-in catalogue among them."""
        toolchain = self.make()
        return [
            target
            for target in catalogue(toolchain.targets()).values()
            if target.toolchain == toolchain.name and target.name != PORTABLE
        ]

    # What it says of itself.

    def test_attributes_are_of_their_types(self) -> None:
        """`Toolchain` says which."""
        _check(contract.attributes_issue(contract.attributes(self.make())))

    def test_answers_are_of_their_types(self) -> None:
        """Also where nothing is installed, and no device is there."""
        toolchain = self.make()
        _check(contract.version_issue(toolchain.version()))
        _check(contract.text_issue(toolchain.pip_command()))
        _check(contract.details_issue(toolchain.runtime_details()))
        _check(contract.targets_issue(toolchain.targets(), toolchain))
        for devices in (Devices((), ()), _DEVICES):
            _check(contract.devices_issue(toolchain.identify(devices, System()), devices))

    def test_it_says_the_same_twice(self) -> None:
        """What differs between two calls makes another machine of this one, and builds everything anew."""
        first, second = self.make(), self.make()
        assert first.version() == second.version()
        assert dict(first.runtime_details()) == dict(second.runtime_details())
        assert first.targets() == second.targets()
        if first.version() is not None:
            built_with = dict(first.built_with())
            assert built_with == dict(second.built_with())
            assert all(isinstance(each, str) for item in built_with.items() for each in item), built_with

    def test_an_unknown_target_is_not_made_up(self) -> None:
        """Names are asked of every toolchain: none may take another's."""
        toolchain = self.make()
        for name in ("no-such-target", "x", "portable", "-", "a" * 128):
            assert toolchain.target_named(name) is None, f"target_named({name!r}) gave a target"

    def test_it_is_installed_as_itself(self) -> None:
        """Its entry point gives it, and nothing is wrong with it."""
        import pytest

        if not self.registered:
            pytest.skip("it is not registered")
        toolchain = self.make()
        assert toolchain.name in toolchains(), f"no entry point gives a toolchain {toolchain.name}"
        found = toolchains()[toolchain.name]
        assert found.failure is None, found.failure
        assert type(unguarded(found)) is type(toolchain)

    def test_looking_at_it_imports_nothing_heavy(self) -> None:
        """Whoever opens a package asks every toolchain."""
        import pytest

        made = type(self.make())
        if getattr(import_module(made.__module__), made.__qualname__, None) is not made:
            pytest.skip("it cannot be imported by its name")
        asked = json.dumps([made.__module__, made.__qualname__, _HEAVY])
        done = subprocess.run(
            [sys.executable, "-c", _LOOK, asked],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == [], "imported though nothing was compiled or run"

    # What a package may ask for.

    def test_targets_set_what_a_package_may_set(self) -> None:
        """What a loader refuses must not be built."""
        toolchain = self.make()
        for target in self.targets():
            assert target.ep == toolchain.ep, f"target {target.name} is for {target.ep}"
            for name, value in target.provider_options.items():
                issue = toolchain.option_issue(name, value)
                assert issue is None, f"target {target.name}, option {name}: {issue}"
            issue = settings_issue(toolchain.session_settings(target), toolchain)
            assert issue is None, f"target {target.name}: {issue}"
            assert isinstance(toolchain.requirements(target), Requirements)
            _check(contract.optional_text_issue(toolchain.foreseen(target)))

    def test_no_option_of_a_package_names_a_file(self) -> None:
        """A manifest comes from strangers."""
        toolchain = self.make()
        for name, setting in (*toolchain.package_options.items(), *toolchain.package_config.items()):
            assert setting.reason, f"{name} has no reason"
            assert setting.form.expected, f"{name} does not say what is expected"
            for value in _HOSTILE_VALUES:
                assert not setting.form.accepts(value), f"{name} accepts {value[:40]!r}"

    # Choosing.

    def test_judging_never_raises(self) -> None:
        """Whatever a stranger's package says, on whatever machine."""
        toolchain = self.make()
        for variant, machine, emulate in self._cases():
            _check(contract.verdict_issue(toolchain.judge(variant, machine, emulate=emulate)))

    def test_judging_reads_nothing_but_its_arguments(self) -> None:
        """The machine may be another one, and the paths in its profile a stranger's."""
        toolchain = self.make()
        own = [Path(import_module(name.partition(".")[0]).__file__ or "") for name in _modules(toolchain)]
        for variant, machine, emulate in self._cases():
            with what_is_read([file.parent for file in own]) as read:
                toolchain.judge(variant, machine, emulate=emulate)
                toolchain.looks_at(variant)
            assert not read, f"of {variant.compatibility.ep_string!r:.60} on {machine.name}: {read[:5]}"

    def test_variants_that_look_equal_are_judged_equally(self) -> None:
        """One verdict serves all variants for which `looks_at` gives the same."""
        toolchain = self.make()
        verdicts: dict[tuple[object, ...], tuple[object, str]] = {}
        for variant, machine, emulate in self._cases():
            _check(contract.hashable_issue(toolchain.looks_at(variant)))
            key = (toolchain.looks_at(variant), variant.device, machine.key(), emulate)
            verdict = toolchain.judge(variant, machine, emulate=emulate)
            first, text = verdicts.setdefault(key, (verdict, str(variant.compatibility.ep_string)))
            assert verdict == first, f"{variant.compatibility.ep_string!r:.60} is judged unlike {text!r:.60}"

    def test_no_answer_of_the_ep_means_a_fit(self) -> None:
        """An EP that cannot read a string says nothing good of it."""
        toolchain = self.make()
        for text in _HOSTILE_STRINGS:
            for device in ("cpu", "gpu", "npu"):
                said = toolchain.ask(text, device)
                assert said is None or said.rank >= 2, f"{text[:40]!r} is {said} for a {device}"

    # Building and loading.

    def test_machines_that_are_not_known_are_not_compiled_for_by_accident(self) -> None:
        """Both answers are of their types, for every target and machine."""
        toolchain = self.make()
        for target, machine in itertools.product(self.targets(), self._machines()):
            _check(contract.optional_text_issue(toolchain.why_not_compile(target, machine)))
            runs = toolchain.how_to_run(target, machine)
            assert isinstance(runs, RunsHere)
            assert runs.how is not None or runs.why, f"{target.name} cannot run, and it does not say why"

    def test_a_small_model_is_built_loaded_and_run(self, tmp_path: Path) -> None:
        """On this machine, as far as it can."""
        import pytest

        import aotpack

        if not self.registered:
            pytest.skip("it is not registered")
        toolchain, machine = self.make(), aotpack.probe()
        wanted = self.targets()
        if self.build_for is not None:
            wanted = [target for target in wanted if target.name in self.build_for]
        reasons = {target.name: toolchain.why_not_compile(target, machine) for target in wanted}
        able = [target for target in wanted if reasons[target.name] is None]
        if not able:
            pytest.skip(f"nothing can be compiled here: {next(iter(reasons.values()), 'it has no targets')}")
        model = self.model(tmp_path)
        for target in able if self.build_for is not None else able[:1]:
            output = tmp_path / f"{target.name}.aotpack"
            report = aotpack.build(model, targets=[target.name], output=output, reuse=False, keep_going=True)
            row = next(row for row in report.rows if row.target == target.name)
            assert row.state == "built", row.reason
            runs = toolchain.how_to_run(target, machine)
            with aotpack.open(output) as package:
                package.verify()
                variant = package.variant(target.name)
                if runs.how is None:
                    continue
                assert variant.numerics is not None, "it can run here, and its numbers were not compared"
                if runs.how != "host":
                    continue
                chosen = package.select(policy=aotpack.Policy(variant=variant.id)).chosen
                assert chosen is not None, "it can run here, and is not chosen"
                loaded = package.load_first(policy=aotpack.Policy(variant=variant.id))
                assert loaded.candidate.id == variant.id, loaded.refused

    def _cases(self) -> Iterator[tuple[Variant, Machine, bool]]:
        """Variants with strings of all sorts, on machines of all sorts."""
        toolchain = self.make()
        foreseen = [toolchain.foreseen(target) for target in self.targets()]
        texts = [None, *self.ep_strings, *dict.fromkeys(filter(None, foreseen)), *_HOSTILE_STRINGS]
        devices = dict.fromkeys(target.device for target in self.targets()) or {"cpu": None}
        for text, device in itertools.product(texts, devices):
            variant = Variant(
                id="some",
                target="some",
                toolchain=toolchain.name,
                ep=toolchain.ep,
                device=device,
                compatibility=Compatibility(ep_string=text),
            )
            variant = variant.replace(id=f"some-{abs(hash((text, device)))}")
            for machine, emulate in itertools.product(self._machines(), (False, True)):
                yield variant, machine, emulate

    def _machines(self) -> Iterator[Machine]:
        """The machines that aotpack knows, and such as say little, or name files in their environment."""
        toolchain = self.make()
        version = toolchain.version() or "1.0"
        ep = {toolchain.ep: Ep(version=version, details=dict(toolchain.runtime_details()))}
        yield Machine(name="nothing is known")
        yield Machine(name="it has nothing", gpus=(), npus=(), eps={})
        yield Machine(name="it has the EP", arch="x86_64", os="linux", gpus=(), npus=(), eps=ep)
        yield Machine(name="it has everything", arch="x86_64", gpus=_DEVICES.gpus, npus=_DEVICES.npus, eps=ep)
        for name in known():
            yield find_machine(name)
        values = itertools.product(("1", __file__), repeat=len(toolchain.environment))
        for chosen in itertools.islice(values, 16):
            variables = dict(zip(toolchain.environment, chosen, strict=True))
            if variables:
                yield Machine(name=str(variables), gpus=(), npus=(), eps=ep, environment=variables)


_DEVICES = Devices(
    (Gpu(vendor="acme", name="Fast"), Gpu(vendor="other")), (Npu(vendor="acme", architecture="1"),)
)


def _modules(toolchain: Toolchain) -> list[str]:
    return [each.__module__ for each in type(toolchain).__mro__ if issubclass(each, Toolchain)]


def _check(issue: str | None) -> None:
    assert issue is None, issue
