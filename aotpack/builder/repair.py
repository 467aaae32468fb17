"""Compile one variant for this very machine, from the portable ONNX that a package holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from aotpack.builder.build import build
from aotpack.builder.models.model import load_graph
from aotpack.builder.models.shapes import tensor_infos
from aotpack.custom_ops import NO_LIBRARIES, Libraries
from aotpack.errors import AotpackError, BuildFailed
from aotpack.events import EventCode, LoadListener
from aotpack.machine import Machine
from aotpack.manifest import Component, Variant
from aotpack.model_check import ANY_DOMAIN, Allowance
from aotpack.package import Package, open_package
from aotpack.policy import Policy
from aotpack.probing import probe
from aotpack.scratch import scratch_folder
from aotpack.shapes import is_fixed
from aotpack.source.cache import Held
from aotpack.source.local import LocalVariants
from aotpack.target import PORTABLE, Target, catalogue
from aotpack.toolchain import toolchains

__all__ = ["compile_here", "compiled_shapes", "fixed_shapes", "shapes_of", "targets_here"]

#: What `compile_here` gives back: the variant and its files, which the caller lets go of; None if it failed.
Work = Callable[[], tuple[Variant, Held] | None]


def compile_here(
    package: Package,
    component: str,
    policy: Policy,
    tell: LoadListener,
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    custom_ops: Libraries = NO_LIBRARIES,
) -> Work:
    """What compiles `component` for this machine and keeps the variant in the cache, when it is called.

    It needs the package no longer then, so it can be called from another thread. The vendor's compiler runs
    in a worker process; the targets that this machine runs are tried from the best one down. What it compiles
    from is kept in the cache until then, so it has to be called.

    Args:
        package: an open package.
        component: the name of one of its components.
        policy: which devices and EPs are taken, in which order.
        tell: is told what is done.
        shapes: to compile for. Without any, toolchains that need fixed ones take those of another variant.
        custom_ops: libraries of its custom operators.
    """
    compiled_from = package.component(component)
    digest, name, cache = package.digest, package.manifest.name, package.cache
    local = LocalVariants(cache)
    portable = next((item for item in compiled_from.variants if item.target == PORTABLE), None)
    if portable is None:
        reason = "The package holds no portable ONNX to compile from."
        tell(EventCode.RECOMPILE_FAILED, reason)
        return lambda: None
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(
                cache.hold(package.reader, compiled_from, portable, Allowance(domains=ANY_DOMAIN))
            )
            model = source.folder / portable.files[0].path
            fixed = fixed_shapes(package, compiled_from)
            stack.pop_all()
    except (AotpackError, OSError) as error:
        tell(EventCode.RECOMPILE_FAILED, str(error), error=error)
        return lambda: None
    machine = probe()
    targets = targets_here(machine, policy)
    if not targets:
        reason = "This machine compiles for none of the devices and EPs that may be taken."
        tell(EventCode.RECOMPILE_FAILED, reason)

    def work() -> tuple[Variant, Held] | None:
        with source:
            return _first_of(targets)

    def _first_of(targets: list[Target]) -> tuple[Variant, Held] | None:
        for target in targets:
            reason = f"It is compiled for this machine ({target.title})."
            tell(EventCode.RECOMPILING, reason, target=target.name)
            try:
                return _compile(target)
            except BuildFailed as error:
                reason = str(error.report.rows[0].reason)
                tell(EventCode.RECOMPILE_FAILED, reason, target=target.name, error=error)
            except Exception as error:
                # What was to be better than a variant that is there must not keep that from being loaded.
                kind = "" if isinstance(error, AotpackError) else f"{type(error).__name__}: "
                tell(EventCode.RECOMPILE_FAILED, f"{kind}{error}", target=target.name, error=error)
        return None

    def _compile(target: Target) -> tuple[Variant, Held]:
        needs_fixed = toolchains()[target.toolchain].needs_fixed_shapes
        with scratch_folder("here") as scratch:
            output = scratch / "here.aotpack"
            build(
                model,
                targets=[target.name],
                output=output,
                name=name,
                shapes=shapes or (fixed if needs_fixed else {}),
                portable=False,
                compress=None,
                custom_ops=custom_ops.paths,
                cache=cache,
            )
            with open_package(output) as built:
                kept = local.keep(
                    digest,
                    component,
                    machine,
                    policy,
                    built.reader,
                    built.component(),
                    shapes,
                    custom_ops.digests,
                )
        reason = "It was compiled for this machine and kept in the cache."
        tell(EventCode.RECOMPILED, reason, target=target.name, variant=kept[0].id)
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


def compiled_shapes(package: Package, variant: Variant) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs that `variant` was compiled with fixed ones for."""
    if variant.shapes is not None:
        return {
            name: tuple(size for size in shape if isinstance(size, int))
            for name, shape in variant.shapes.items()
            if is_fixed(shape)
        }
    # Packages of earlier releases do not say it.
    with scratch_folder("shapes") as scratch:
        model = scratch / "model.onnx"
        package.reader.copy_file(variant.files[0], model)
        return shapes_of(model)


def fixed_shapes(package: Package, component: Component) -> Mapping[str, tuple[int, ...]]:
    """The shapes that another variant was compiled with: some toolchains compile nothing else."""
    wanted = {info.name for info in component.inputs if not all(isinstance(x, int) for x in info.shape or ())}
    if not wanted:
        return {}
    for variant in component.variants:
        if variant.target == PORTABLE or not variant.coverage or not variant.coverage.compiled:
            continue
        found = compiled_shapes(package, variant)
        shapes = {name: shape for name, shape in found.items() if name in wanted}
        if shapes:
            return shapes
    return {}
