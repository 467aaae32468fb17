"""Run the variants of a package that fit this machine, and compare them with its portable model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from aotpack.builder.jobs.job import Reference, make_reference
from aotpack.builder.jobs.libraries import check_loadable
from aotpack.builder.jobs.supervise import Workers
from aotpack.builder.jobs.worker import CompareRequest
from aotpack.builder.models.bfloat16 import BFLOAT16, computes_in_bfloat16
from aotpack.builder.models.low_bits import low_bit_types
from aotpack.builder.models.model import read_graph
from aotpack.builder.numerics.hints import rounds_to_integers
from aotpack.builder.numerics.judge import Tolerances, judge, tolerance_key
from aotpack.builder.numerics.samples import OtherSizes, read_sample, sample_files, write_samples
from aotpack.builder.repair import fixed_shapes
from aotpack.builder.spec import Limits
from aotpack.builder.tune import hold_variant, inputs_of, measure_variant
from aotpack.cache.variants import Held
from aotpack.errors import AotpackError, UnknownName
from aotpack.files.scratch import scratch_folder
from aotpack.machine.profile import Gpu, Machine, Npu
from aotpack.manifest.records import RecordEntry, RecordFile, files_digest
from aotpack.manifest.values import Component, Numerics, Record, TensorInfo, Variant
from aotpack.runtime.package import Package
from aotpack.runtime.probing import probe
from aotpack.selection.custom_ops import GivenLibraries, checked_libraries
from aotpack.selection.policy import Policy
from aotpack.selection.select import Candidate, select
from aotpack.selection.verdict import Code
from aotpack.targets.catalogue import PORTABLE

__all__ = ["Checked", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One variant on this machine."""

    entry: RecordEntry
    #: It runs, and nothing of its numbers is off.
    good: bool


def check(
    package: Package,
    *,
    component: str | None = None,
    policy: Policy | None = None,
    inputs: Sequence[Path] = (),
    tolerance: float | None = None,
    tolerances: Mapping[str, float] = MappingProxyType({}),
    runs: int = 20,
    limits: Limits | None = None,
    machine_name: str | None = None,
    custom_ops: GivenLibraries = (),
    on_checked: Callable[[Checked], None] | None = None,
) -> tuple[RecordFile, bool]:
    """Check every variant that this machine can run, each in processes of its own.

    Args:
        package: an open package.
        component: only this one; by default all.
        policy: which variants are checked: those that it accepts.
        inputs: of the user's, as for `aotpack.build`; by default they are made up.
        tolerance: the largest error, for all outputs; by default by precision.
        tolerances: output to its own.
        runs: timed, after the first one, at most.
        limits: of each process.
        machine_name: what the records call this machine; by default its processor, GPU or NPU.
        custom_ops: paths of the libraries of custom operators that the models need.
        on_checked: is told each variant when it is done.

    Returns:
        The records, and whether all that ran is good.

    Raises:
        UnknownName: a component or output does not exist.
        UsageError: inputs do not fit, or a library of custom operators cannot be loaded.
    """
    components = package.manifest.components if component is None else (package.component(component),)
    outputs = {info.name for each in components for info in each.outputs}
    for name in tolerances:
        if name not in outputs:
            raise UnknownName("output with a tolerance", name, outputs)
    machine, libraries = probe(), checked_libraries(custom_ops)
    found: list[Checked] = []
    with Workers() as workers, scratch_folder("check") as scratch:
        check_loadable(libraries, workers)
        for index, each in enumerate(components):
            work = _Component(
                package,
                each,
                scratch / str(index),
                workers,
                limits or Limits(seconds=300.0),
                machine,
                libraries,
            )
            held_to = _HeldTo(tolerance, tolerances)
            for checked in work.check(policy or Policy(), inputs, held_to, runs, machine_name):
                found.append(checked)
                if on_checked is not None:
                    on_checked(checked)
    file = RecordFile(
        package=package.manifest.name,
        digest=package.digest,
        entries=tuple(each.entry for each in found),
    )
    return file, all(each.good for each in found)


@dataclass(frozen=True, slots=True)
class _HeldTo:
    overall: float | None
    outputs: Mapping[str, float]


class _Component:
    """The check of one component."""

    def __init__(
        self,
        package: Package,
        component: Component,
        folder: Path,
        workers: Workers,
        limits: Limits,
        machine: Machine,
        custom_ops: tuple[Path, ...],
    ) -> None:
        self._package = package
        self._component = component
        self._folder = folder
        self._workers = workers
        self._limits = limits
        self._machine = machine
        self._custom_ops = custom_ops
        self._shapes = fixed_shapes(package.reader, component)
        self._references: dict[tuple[TensorInfo, ...], Reference] = {}
        self._bfloat16 = self._rounds = False
        #: Of variants that no sample of the user's fits.
        self._other_sizes: list[OtherSizes] = []
        folder.mkdir()

    def check(
        self, policy: Policy, inputs: Sequence[Path], held_to: _HeldTo, runs: int, name: str | None
    ) -> list[Checked]:
        """All that the policy accepts, in its order."""
        selection = select(
            self._component,
            self._machine,
            self._package.rules(self._machine),
            here=True,
            policy=policy,
            custom_ops=bool(self._custom_ops),
        )
        for sample in sample_files(inputs):
            read_sample(sample, self._component.inputs)
        accepted = selection.accepted
        precisions = {"f32", *(each.variant.precision or "f32" for each in accepted)}
        found = [
            self._one(index, each, inputs, precisions, held_to, runs, name)
            for index, each in enumerate(accepted)
        ]
        if self._other_sizes and len(self._other_sizes) == len(self._references):
            raise self._other_sizes[0]
        return found

    def _reference(
        self, infos: tuple[TensorInfo, ...], given: Sequence[Path], precisions: set[str]
    ) -> Reference:
        """What variants of these shapes are compared with."""
        if infos not in self._references:
            self._references[infos] = self._made_reference(infos, given, precisions)
        return self._references[infos]

    def _made_reference(
        self, infos: tuple[TensorInfo, ...], given: Sequence[Path], precisions: set[str]
    ) -> Reference:
        portable = next((each for each in self._component.variants if each.target == PORTABLE), None)
        if portable is None:
            return Reference(path=None, failure="the package has no portable variant to compare with")
        try:
            held = self._hold(portable)
        except AotpackError as error:
            return Reference(path=None, failure=str(error))
        with held:
            return self._reference_of(held.folder / portable.files[0].path, infos, given, precisions)

    def _reference_of(
        self, model: Path, infos: tuple[TensorInfo, ...], given: Sequence[Path], precisions: set[str]
    ) -> Reference:
        graph = read_graph(model)
        self._bfloat16 = computes_in_bfloat16(graph)
        self._rounds = rounds_to_integers(graph) or bool(low_bit_types(graph) - {BFLOAT16})
        folder = self._folder / f"reference-{len(self._references)}"
        folder.mkdir()
        samples = folder / "given.npz" if given else None
        if samples is not None:
            try:
                write_samples(given, infos, samples)
            except OtherSizes as error:
                self._other_sizes.append(error)
                return Reference(path=None, failure=str(error))
        return make_reference(
            model,
            folder,
            self._workers,
            self._limits,
            given=samples,
            precisions=precisions,
            inputs=infos,
            custom_ops=self._custom_ops,
        )

    def _hold(self, variant: Variant) -> Held:
        return hold_variant(self._package, self._component, variant, custom_ops=bool(self._custom_ops))

    def _one(
        self,
        index: int,
        candidate: Candidate,
        given: Sequence[Path],
        precisions: set[str],
        held_to: _HeldTo,
        runs: int,
        name: str | None,
    ) -> Checked:
        variant = candidate.variant
        infos = inputs_of(self._component, variant, self._shapes)
        # The user's inputs have sizes where the variant leaves them open.
        sizes = inputs_of(self._component, variant, {}) if given else infos
        reference = self._reference(sizes, given, precisions)
        numerics, failure, good = self._numbers(index, candidate, reference, held_to)
        measured = None
        if good:
            measured = measure_variant(
                self._package,
                self._component,
                candidate,
                infos,
                runs,
                self._limits,
                self._custom_ops,
            )
            good = measured.failure is None
            failure = failure or measured.failure
        device = _device(self._machine, variant.device)
        ep = (self._machine.eps or {}).get(variant.ep)
        versions = {"onnxruntime": self._machine.onnxruntime, variant.ep: ep.version if ep else None}
        record = Record(
            machine=name or (device and device.name) or self._machine.cpu.model or "unnamed",
            os=self._machine.os or "unknown",
            arch=self._machine.arch or "unknown",
            cpu=self._machine.cpu.model,
            device=device.name if device else None,
            driver=device.driver if device else None,
            versions={key: value for key, value in versions.items() if value is not None},
            load_seconds=measured.load_seconds if measured else None,
            first_run_seconds=measured.first_run_seconds if measured else None,
            run_seconds=measured.run_seconds if measured else None,
            runs=measured.runs if measured else 0,
            peak_memory=measured.peak_memory if measured else None,
            numerics=numerics,
            failure=failure,
        )
        entry = RecordEntry(
            component=self._component.name,
            variant=variant.id,
            target=variant.target,
            files=files_digest(variant),
            record=record,
        )
        return Checked(entry=entry, good=good)

    def _numbers(
        self, index: int, candidate: Candidate, reference: Reference, held_to: _HeldTo
    ) -> tuple[Numerics | None, str | None, bool]:
        """What was compared, what there is to say, and whether it runs and is as good as it has to be."""
        variant = candidate.variant
        emulated = candidate.verdict.code is Code.EMULATED
        folder = self._folder / f"variant-{index}"
        folder.mkdir()
        try:
            held = self._hold(variant)
        except AotpackError as error:
            return None, str(error), False
        with held:
            request = CompareRequest(
                variant=variant,
                model=str(held.folder / variant.files[0].path),
                reference=None if reference.path is None else str(reference.path),
                precision=variant.precision,
                emulate=emulated,
                custom_ops=tuple(map(str, self._custom_ops)),
            )
            outcome = self._workers.run(request, folder, environment={}, limits=self._limits)
        if outcome.failure is not None or outcome.result is None:
            return None, f"it does not run: {outcome.failure or 'it gave no result'}", False
        if outcome.result.compared is None:
            return None, f"not compared: {reference.failure}", True
        key = tolerance_key(variant.precision, bfloat16=self._bfloat16, rounds=self._rounds)
        numerics, off = judge(
            outcome.result.compared,
            Tolerances(key, held_to.overall, held_to.outputs),
            "emulator" if emulated else "host",
        )
        return numerics, off, off is None or variant.target == PORTABLE


def _device(machine: Machine, kind: str) -> Gpu | Npu | None:
    found: tuple[Gpu | Npu, ...] = ()
    if kind == "gpu":
        found = machine.gpus or ()
    elif kind == "npu":
        found = machine.npus or ()
    return found[0] if found else None
