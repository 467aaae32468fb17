"""Compile one variant for this very machine, from the portable ONNX that a package holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from aotpack.builder.build import build
from aotpack.builder.models.model import load_graph
from aotpack.builder.models.shapes import tensor_infos
from aotpack.cache.local import LocalVariants
from aotpack.cache.variants import Cache, Held
from aotpack.container.reader import PackageReader
from aotpack.errors import AotpackError, BuildFailed
from aotpack.files.scratch import scratch_folder
from aotpack.machine.profile import Machine
from aotpack.manifest.model_check import ANY_DOMAIN, Allowance
from aotpack.manifest.values import Component, Variant
from aotpack.runtime.events import EventCode, LoadListener
from aotpack.runtime.probing import probe
from aotpack.selection.custom_ops import NO_LIBRARIES, Libraries
from aotpack.selection.policy import Policy
from aotpack.selection.shapes import is_fixed
from aotpack.targets.catalogue import PORTABLE, Target, catalogue
from aotpack.toolchains import toolchains

__all__ = ["compile_here", "compiled_shapes", "fixed_shapes", "shapes_of", "targets_here"]

#: What `compile_here` gives back: the variant and its files, which the caller lets go of; None if it failed.
Work = Callable[[], tuple[Variant, Held] | None]


def compile_here(
    reader: PackageReader,
    compiled_from: Component,
    cache: Cache,
    policy: Policy,
    tell: LoadListener,
    shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    custom_ops: Libraries = NO_LIBRARIES,
) -> Work:
    """What compiles `compiled_from` for this machine and keeps the variant in the cache, when it is called.

    It needs the package no longer then, so it can be called from another thread. The vendor's compiler runs
    in a worker process; the targets that this machine runs are tried from the best one down. What it compiles
    from is kept in the cache until then, so it has to be called.

    Args:
        reader: an open package.
        compiled_from: one of its components.
        cache: takes what is compiled.
        policy: which devices and EPs are taken, in which order.
        tell: is told what is done.
        shapes: to compile for. Without any, toolchains that need fixed ones take those of another variant.
        custom_ops: libraries of its custom operators.
    """
    digest, name, component = reader.digest, reader.manifest.name, compiled_from.name
    local = LocalVariants(cache)
    portable = next((item for item in compiled_from.variants if item.target == PORTABLE), None)
    if portable is None:
        reason = "The package holds no portable ONNX to compile from."
        tell(EventCode.RECOMPILE_FAILED, reason)
        return lambda: None
    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(
                cache.hold(reader, compiled_from, portable, Allowance(domains=ANY_DOMAIN))
            )
            model = source.folder / portable.files[0].path
            fixed = fixed_shapes(reader, compiled_from)
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
            with PackageReader.open(output) as built:
                kept = local.keep(
                    digest,
                    component,
                    machine,
                    policy,
                    built,
                    built.manifest.components[0],
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


def compiled_shapes(reader: PackageReader, variant: Variant) -> dict[str, tuple[int, ...]]:
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
        reader.copy_file(variant.files[0], model)
        return shapes_of(model)


def fixed_shapes(reader: PackageReader, component: Component) -> Mapping[str, tuple[int, ...]]:
    """The shapes that another variant was compiled with: some toolchains compile nothing else."""
    wanted = {info.name for info in component.inputs if not all(isinstance(x, int) for x in info.shape or ())}
    if not wanted:
        return {}
    for variant in component.variants:
        if variant.target == PORTABLE or not variant.coverage or not variant.coverage.compiled:
            continue
        found = compiled_shapes(reader, variant)
        shapes = {name: shape for name, shape in found.items() if name in wanted}
        if shapes:
            return shapes
    return {}
