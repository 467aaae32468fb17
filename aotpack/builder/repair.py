"""Compile one variant for this very machine, from the portable ONNX that a package holds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from aotpack.builder.build import build
from aotpack.builder.models.model import load_graph
from aotpack.builder.models.shapes import tensor_infos
from aotpack.errors import AotpackError, BuildFailed
from aotpack.events import EventCode
from aotpack.machine import Machine
from aotpack.manifest import Component, Variant
from aotpack.package import Package, open_package
from aotpack.policy import Policy
from aotpack.probing import probe
from aotpack.source.local import LocalVariants
from aotpack.target import PORTABLE, Target, catalogue
from aotpack.toolchain import toolchains

__all__ = ["compile_here", "fixed_shapes", "shapes_of", "targets_here"]

#: What `compile_here` gives back: the variant and the folder of its files; None if it failed.
Work = Callable[[], tuple[Variant, Path] | None]


def compile_here(package: Package, component: str, policy: Policy, announce: Callable[..., None]) -> Work:
    """What compiles `component` for this machine and keeps the variant in the cache, when it is called.

    It needs the package no longer then, so it can be called from another thread. The vendor's compiler runs
    in a worker process; the targets that this machine runs are tried from the best one down.

    Args:
        package: an open package.
        component: the name of one of its components.
        policy: which devices and EPs are taken, in which order.
        announce: is told what is done (`aotpack.events.announcer`).
    """
    compiled_from = package.component(component)
    digest, name, cache = package.digest, package.manifest.name, package.cache
    local = LocalVariants(cache)
    portable = next((item for item in compiled_from.variants if item.target == PORTABLE), None)
    if portable is None:
        reason = "The package holds no portable ONNX to compile from."
        announce(EventCode.RECOMPILE_FAILED, component, reason)
        return lambda: None
    try:
        model = cache.materialise(package.reader, compiled_from, portable) / portable.files[0].path
        shapes = fixed_shapes(package, compiled_from)
    except (AotpackError, OSError) as error:
        announce(EventCode.RECOMPILE_FAILED, component, str(error))
        return lambda: None
    machine = probe()
    targets = targets_here(machine, policy)
    if not targets:
        reason = "This machine compiles for none of the devices and EPs that may be taken."
        announce(EventCode.RECOMPILE_FAILED, component, reason)

    def work() -> tuple[Variant, Path] | None:
        for target in targets:
            announce(EventCode.RECOMPILING, target.name, f"It is compiled for this machine ({target.title}).")
            try:
                return _compile(target)
            except BuildFailed as error:
                announce(EventCode.RECOMPILE_FAILED, target.name, str(error.report.rows[0].reason))
            except (AotpackError, OSError) as error:
                announce(EventCode.RECOMPILE_FAILED, target.name, str(error))
        return None

    def _compile(target: Target) -> tuple[Variant, Path]:
        with tempfile.TemporaryDirectory(prefix="aotpack-here-") as scratch:
            output = Path(scratch) / "here.aotpack"
            build(
                model,
                targets=[target.name],
                output=output,
                name=name,
                shapes=shapes,
                portable=False,
                compress=None,
            )
            with open_package(output) as built:
                kept = local.keep(digest, component, machine, policy, built.reader, built.component())
        announce(EventCode.RECOMPILED, kept[0].id, "It was compiled for this machine and kept in the cache.")
        return kept

    return work


def targets_here(machine: Machine, policy: Policy) -> list[Target]:
    """Targets that `machine` both compiles for and is, as the policy orders them."""
    known = toolchains()
    extra = [target for toolchain in known.values() for target in toolchain.targets()]
    devices = policy.device_order
    found = []
    for target in catalogue(extra).values():
        toolchain = known.get(target.toolchain)
        if target.name == PORTABLE or toolchain is None or target.device not in devices:
            continue
        if policy.eps is not None and target.ep not in policy.eps:
            continue
        if toolchain.why_not_compile(target, machine) is not None:
            continue
        if toolchain.how_to_run(target, machine).how == "host":
            found.append(target)
    return sorted(found, key=lambda target: (devices.index(target.device), -target.specificity))


def shapes_of(model: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's inputs that are fixed."""
    return {
        info.name: tuple(size for size in info.shape if isinstance(size, int))
        for info in tensor_infos(load_graph(model))
        if info.shape and all(isinstance(size, int) for size in info.shape)
    }


def fixed_shapes(package: Package, component: Component) -> Mapping[str, tuple[int, ...]]:
    """The shapes that another variant was compiled with: some toolchains compile nothing else."""
    wanted = {info.name for info in component.inputs if not all(isinstance(x, int) for x in info.shape or ())}
    if not wanted:
        return {}
    for variant in component.variants:
        if variant.target == PORTABLE or not variant.coverage or not variant.coverage.compiled:
            continue
        with tempfile.TemporaryDirectory(prefix="aotpack-shapes-") as scratch:
            model = Path(scratch) / "model.onnx"
            package.reader.copy_file(variant.files[0], model)
            shapes = {name: shape for name, shape in shapes_of(model).items() if name in wanted}
        if shapes:
            return shapes
    return {}
