"""Measure every variant that fits this machine, each in a process of its own, and keep what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aotpack.builder.jobs.libraries import check_loadable
from aotpack.builder.jobs.resources import default_limits
from aotpack.builder.jobs.supervise import Workers, run_worker
from aotpack.builder.jobs.worker import MeasureRequest
from aotpack.builder.spec import Limits
from aotpack.cache.variants import Held
from aotpack.errors import NotAllowed
from aotpack.files.scratch import scratch_folder
from aotpack.machine.profile import Machine
from aotpack.manifest.model_check import ANY_DOMAIN, Allowance
from aotpack.manifest.values import Component, TensorInfo, Variant
from aotpack.runtime.package import Package
from aotpack.runtime.probing import probe
from aotpack.runtime.tuning import Measurement, Tuning, TuningStore
from aotpack.selection.custom_ops import GivenLibraries, checked_libraries
from aotpack.selection.policy import Policy
from aotpack.selection.select import Candidate, select
from aotpack.selection.shapes import is_fixed
from aotpack.selection.verdict import Code
from aotpack.toolchains import toolchains

__all__ = ["hold_variant", "inputs_of", "measure_variant", "tune"]

#: Seconds that a variant's runs take at most, loading left aside.
_MEASURED_SECONDS = 5.0


def tune(
    package: Package,
    *,
    component: str | None = None,
    policy: Policy | None = None,
    runs: int = 50,
    limits: Limits | None = None,
    custom_ops: GivenLibraries = (),
    on_measured: Callable[[Measurement], None] | None = None,
) -> Tuning:
    """Measure what fits, and keep it in the cache for this machine and package.

    A variant that crashes, hangs or raises is remembered with the reason; every later choice on this machine
    leaves it out. What was remembered before does not keep a variant from being measured again, and stays
    for those that the policy leaves out this time.

    Args:
        package: an open package.
        component: its name; by default the first one.
        policy: which variants are measured: those that it accepts.
        runs: of each variant after the first one, at most.
        limits: of each process; by default 300 seconds, and memory as for `aotpack.build`.
        custom_ops: paths of the libraries of custom operators that the model needs.
        on_measured: is told each measurement when it is done.

    Returns:
        All that is known of the component on this machine.

    Raises:
        OutputError: the cache cannot be written.
        UsageError: a library of custom operators cannot be loaded.
    """
    libraries = checked_libraries(custom_ops)
    with Workers() as workers:
        check_loadable(libraries, workers)
    limits = default_limits(limits or Limits(seconds=300.0))
    tuned = package.component(component)
    machine, policy, store = probe(), policy or Policy(), TuningStore(package.cache.root)
    selection = select(
        tuned, machine, package.rules(machine), here=True, policy=policy, custom_ops=bool(libraries)
    )
    shapes = _shapes(package, tuned)
    known = dict(store.read(package.digest, tuned.name, machine))
    tuning = _tuning(package, tuned, machine, known)
    for candidate in selection.accepted:
        measurement = measure_variant(
            package,
            tuned,
            candidate,
            inputs_of(tuned, candidate.variant, shapes),
            runs,
            limits or Limits(seconds=300.0),
            libraries,
        )
        known[candidate.id] = measurement
        tuning = _tuning(package, tuned, machine, known)
        # Kept one by one: whoever is stopped on the way has those that were done.
        store.write(tuning)
        if on_measured is not None:
            on_measured(measurement)
    return tuning


def _shapes(package: Package, component: Component) -> Mapping[str, tuple[int, ...]]:
    """Of the inputs that no size is given of. Only for these is the extra `build` needed: an ONNX is read."""
    if all(is_fixed(info.shape) for info in component.inputs):
        return {}
    from aotpack.builder.repair import fixed_shapes

    return fixed_shapes(package.reader, component)


def _tuning(
    package: Package, component: Component, machine: Machine, known: Mapping[str, Measurement]
) -> Tuning:
    return Tuning(
        package=package.manifest.name,
        digest=package.digest,
        component=component.name,
        machine=machine.key(),
        measurements=tuple(known[each.id] for each in component.variants if each.id in known),
    )


def hold_variant(
    package: Package, component: Component, variant: Variant, *, custom_ops: bool = False
) -> Held:
    """The files of a variant, as a session may load them, kept until let go of.

    Args:
        package: an open package.
        component: one of its components.
        variant: one of the component's.
        custom_ops: the session has libraries of custom operators.

    Raises:
        NotAllowed: its ONNX asks for what it may not.
        PackageError, OutputError: as for `Cache.hold`.
    """
    domains = ANY_DOMAIN if custom_ops else frozenset[str]()
    allowance = Allowance.of(toolchains().get(variant.toolchain), domains)
    return package.cache.hold(package.reader, component, variant, allowance)


def measure_variant(
    package: Package,
    component: Component,
    candidate: Candidate,
    inputs: tuple[TensorInfo, ...],
    runs: int,
    limits: Limits,
    custom_ops: Sequence[Path] = (),
) -> Measurement:
    """Time one variant in a process of its own. What goes wrong is in what it gives.

    Args:
        package: an open package.
        component: one of its components.
        candidate: a variant of it.
        inputs: what it is run on (`fixed_inputs`).
        runs: after the first one, at most.
        limits: of the process.
        custom_ops: libraries of custom operators.
    """
    variant = candidate.variant
    try:
        held = hold_variant(package, component, variant, custom_ops=bool(custom_ops))
    except NotAllowed as error:
        return Measurement(variant=variant.id, target=variant.target, failure=str(error))
    with held, scratch_folder("tune") as scratch:
        request = MeasureRequest(
            variant=variant,
            model=str(held.folder / variant.files[0].path),
            inputs=inputs,
            runs=runs,
            seconds=_MEASURED_SECONDS,
            emulate=candidate.verdict.code is Code.EMULATED,
            custom_ops=tuple(map(str, custom_ops)),
        )
        outcome = run_worker(request, scratch, environment={}, limits=limits)
    if outcome.failure is None and outcome.result is not None and outcome.result.measurement is not None:
        return outcome.result.measurement
    failure = " ".join((outcome.failure or "it gave no result").split())
    return Measurement(variant=variant.id, target=variant.target, failure=failure)


def inputs_of(
    component: Component, variant: Variant, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[TensorInfo, ...]:
    """The component's inputs of the shapes that `variant` was compiled for, else of `shapes`."""
    own = {name: shape for name, shape in (variant.shapes or {}).items() if is_fixed(shape)}
    taken = {**shapes, **own}
    return tuple(
        info.replace(shape=taken[info.name]) if info.name in taken else info for info in component.inputs
    )
