"""What a job gave, as rows of the report and variants of the package."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msgspec import ValidationError

from aotpack._text import printable
from aotpack.builder.jobs.job import NOT_ASKED, Done, PartDone
from aotpack.builder.jobs.manifest_rules import check_variant, seen_by_loaders
from aotpack.builder.models.bfloat16 import BFLOAT16
from aotpack.builder.models.lowering import Lowered
from aotpack.builder.numerics.judge import Tolerances, judge, tolerance_key
from aotpack.builder.plan import ComponentPlan, Job
from aotpack.builder.report import Row
from aotpack.common.field_errors import explain
from aotpack.common.vendor_text import brief
from aotpack.errors import AotpackError
from aotpack.manifest.values import Compatibility, Coverage, Numerics, Variant
from aotpack.selection.custom_ops import missing_library
from aotpack.selection.policy import DEFAULT_MIN_COMPILED, share_compiled
from aotpack.targets.catalogue import PORTABLE
from aotpack.toolchains.plugin import MODEL_NAME

__all__ = ["Built", "failed", "finish", "portable"]

_log = logging.getLogger("aotpack.build")

#: Of a log, in characters: enough for the vendor's last words.
_LOG_IN_REPORT = 4000
#: Of a reason, in characters: some vendors list every node of the model in one message.
_REASON_IN_REPORT = 400
#: Of the whole message, in characters: one of a large model may name each of its nodes.
_DETAILS_IN_REPORT = 20_000
#: Of the portable variant of a model that computes in bfloat16.
NO_BFLOAT16 = "Not run here: on a CPU ONNX Runtime computes no bfloat16."
#: A variant that is so many times as large as its model, and by so many bytes larger, says so. Engines and
#: blobs hold programs as well, which small models are smaller than.
_GROWN, _ADDED = 2, 8 * 1024 * 1024
#: Of the nodes that are left out.
_NAMED_NODES = 5
#: Of such a name, in characters.
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came out for one component: a variant with its files, or only a row that says why not."""

    row: Row
    variant: Variant | None = None
    files: tuple[tuple[str, Path], ...] = ()


def portable(job: Job, lowered: Mapping[str, Lowered]) -> Done:
    """The ONNX itself, which nothing has to be done for: it is what the others are compared with.

    Args:
        job: of the portable target.
        lowered: component to what any EP can run.
    """
    parts = []
    for component in job.components:
        mine = lowered[component.name]
        model = mine.model
        unchecked = NO_BFLOAT16 if BFLOAT16 in component.narrow else None
        if component.custom_domains and not job.custom_ops.paths:
            unchecked = f"Not run here: {missing_library(component.custom_domains)}"
        parts.append(
            PartDone(
                component=component.name,
                files=tuple(zip((MODEL_NAME, *model.data), map(str, model.files()), strict=True)),
                coverage=Coverage(nodes=component.model.nodes, compiled=0, partitions=0),
                unchecked=unchecked,
                flex=mine.records,
            )
        )
    # One that no CPU runs has nothing left to check.
    unrunnable = all(part.unchecked is not None for part in parts)
    return Done(parts=tuple(parts), check_key=job.check_key if unrunnable else None)


def failed(job: Job, component: ComponentPlan, done: Done, reason: str, why: str | None = None) -> Built:
    """A row that says why there is no variant."""
    whole = " ".join(reason.split())
    sentence = brief(reason, _REASON_IN_REPORT) or whole
    if sentence != whole:
        _log.info("%s/%s: %s", component.name, job.target.name, printable(whole))
    return Built(
        row=Row(
            target=job.target.name,
            component=component.name,
            state="failed",
            seconds=done.seconds,
            load_seconds=done.load_seconds,
            compile_seconds=done.compile_seconds,
            check_seconds=done.check_seconds,
            reason=sentence,
            details=whole[:_DETAILS_IN_REPORT] if sentence != whole else None,
            why=why,
            peak_memory=done.peak_memory or None,
            machine=done.machine,
            log=done.log[-_LOG_IN_REPORT:] or None,
        )
    )


def finish(job: Job, done: Done, *, cached: bool, why: str | None) -> tuple[Built, ...]:
    """One result for each component of the job; numbers are held to their tolerance here.

    Args:
        job: what was asked for.
        done: what came of it.
        cached: an earlier build did it.
        why: why it was not taken from an earlier build.
    """
    if done.failure is not None:
        return tuple(failed(job, component, done, done.failure, why) for component in job.components)
    built = []
    for component, part in zip(job.components, done.parts, strict=True):
        try:
            built.append(_finish(job, component, done, part, cached, why))
        except ValidationError as error:
            reason = f"no package may hold it: {explain(error)}"
            built.append(failed(job, component, done, reason, why))
        except (AotpackError, OSError) as error:
            built.append(failed(job, component, done, str(error), why))
    return tuple(built)


def _finish(
    job: Job, component: ComponentPlan, done: Done, part: PartDone, cached: bool, why: str | None
) -> Built:
    target = job.target
    numerics: Numerics | None = None
    off: str | None = None
    if not job.check:
        part = part.replace(checked=None, unchecked=NOT_ASKED)
    if part.checked is not None:
        key = tolerance_key(target.precision, bfloat16=BFLOAT16 in component.narrow, rounds=component.rounds)
        tolerances = Tolerances(key, job.tolerance, job.tolerances)
        numerics, off = judge(part.checked.compared, tolerances, part.checked.ran_on)
    if off is not None and target.name != PORTABLE:
        return failed(job, component, done, off, why)
    if off is not None:
        # The model is what it is: its session in ONNX Runtime computes otherwise than the graph without
        # fusions.
        off = f"ONNX Runtime's own optimisations change what it computes: {off}."
    seen = seen_by_loaders(done.session, part.files, job.toolchain)
    if seen.issue is not None:
        return failed(job, component, done, seen.issue, why)
    requires = done.requires.replace(custom_ops=seen.domains or None)
    variant = Variant(
        id=job.variant_id(component),
        target=target.name,
        toolchain=job.toolchain.name,
        ep=target.ep,
        device=target.device,
        precision=target.precision,
        shapes=component.shapes(target),
        specificity=target.specificity,
        compatibility=Compatibility(ep_string=part.ep_string, requires=requires),
        session=done.session,
        built_with=done.built_with if target.name != PORTABLE else {},
        coverage=part.coverage,
        numerics=numerics,
        not_compared=None if numerics is not None else part.unchecked,
        flex=part.flex,
    )
    check_variant(variant, [name for name, _ in part.files])
    share = share_compiled(part.coverage)
    left_out = _left_out(part, job, done.remarks)
    if job.min_compiled is not None and share < job.min_compiled:
        asked = f"{job.min_compiled:.0%} were asked for (min_compiled)"
        reason = f"too little was compiled: {_counted(part.coverage)}, {asked}. {left_out or ''}"
        return failed(job, component, done, reason, why)
    few = None
    if share < DEFAULT_MIN_COMPILED:
        few = (
            f"Only {_counted(part.coverage)}: `select` takes it after variants with "
            f"{DEFAULT_MIN_COMPILED:.0%} and more."
        )
    size = sum(Path(path).stat().st_size for _, path in part.files)
    notes = (few, part.note, left_out, part.unchecked, off, _uncompared(numerics), _grown(component, size))
    return Built(
        row=Row(
            target=target.name,
            component=component.name,
            state="built",
            cached=cached,
            why=why,
            seconds=done.seconds,
            load_seconds=done.load_seconds,
            compile_seconds=done.compile_seconds,
            check_seconds=done.check_seconds,
            reason=" ".join(note for note in notes if note) or None,
            id=variant.id,
            size=size,
            ep_string=part.ep_string,
            coverage=part.coverage,
            numerics=numerics,
            peak_memory=done.peak_memory or None,
            machine=done.machine,
            log=done.log[-_LOG_IN_REPORT:] if part.left else None,
        ),
        variant=variant,
        files=tuple((name, Path(path)) for name, path in part.files),
    )


def _uncompared(numerics: Numerics | None) -> str | None:
    """Which outputs were not compared, and why."""
    why: dict[str, list[str]] = {}
    for output in numerics.outputs if numerics else ():
        if output.not_compared is not None:
            why.setdefault(output.not_compared, []).append(output.name)
        if output.remark is not None:
            why.setdefault(output.remark, []).append(output.name)
    if not why:
        return None
    told = []
    for reason, names in why.items():
        shown = ", ".join(names[:_NAMED_NODES]) + (", …" if len(names) > _NAMED_NODES else "")
        told.append(f"Output {shown}: {reason}.")
    return " ".join(told)


def _grown(component: ComponentPlan, size: int) -> str | None:
    """That a variant is much larger than its model; what a compiler adds to any model is not much."""
    before = component.model.source.size
    if size < _GROWN * before or size < before + _ADDED:
        return None
    return (
        f"Its files are {size / before:.1f} times as large as the model: "
        "the compiler keeps weights in a wider type."
    )


def _counted(coverage: Coverage) -> str:
    partitions = f"{coverage.partitions:,} {'partition' if coverage.partitions == 1 else 'partitions'}"
    return f"{coverage.compiled:,} of {coverage.nodes:,} nodes were compiled, in {partitions}"


def _left_out(part: PartDone, job: Job, remarks: tuple[str, ...]) -> str | None:
    """Which nodes stay on the CPU, and why."""
    if not part.left:
        return None
    count = sum(len(names) for names in part.left.values())
    kinds = []
    for kind, names in sorted(part.left.items()):
        shown = ", ".join(name[:_LONGEST_NAME] for name in names[:_NAMED_NODES]) + (
            ", …" if len(names) > _NAMED_NODES else ""
        )
        kinds.append(f"{kind} ({shown})")
    why = (
        f" {job.target.ep}: {said.rstrip('.')}."
        if (said := brief("; ".join(remarks)))
        else f" {job.target.ep} does not say why."
    )
    return f"{count} of {part.coverage.nodes} nodes stay on the CPU: {', '.join(kinds)}.{why}"
