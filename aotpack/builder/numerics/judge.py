"""Which errors are tolerated, and what is recorded of those that are. docs/numerics.md has the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotpack.builder.numerics.compare import Compared
from aotpack.builder.numerics.measure import INFINITE, Measured
from aotpack.manifest.values import Numerics, OutputNumerics

__all__ = ["OVERALL", "TOLERANCES", "UNEQUAL", "Tolerances", "judge", "tolerance_key"]

#: Of a slice: the root mean square of the difference over the slice's scale, by the precision that an EP
#: computes in. ``int8`` is for models with quantised weights or activations, whose roundings runtimes put in
#: other places.
TOLERANCES: Mapping[str | None, float] = MappingProxyType(
    {None: 1e-3, "f32": 1e-3, "f16": 2e-1, "bf16": 3e-1, "int8": 2e-1}
)
#: Of an output as a whole, where the errors of slices with small scales do not weigh.
OVERALL: Mapping[str | None, float] = MappingProxyType(
    {None: 1e-3, "f32": 1e-3, "f16": 3e-2, "bf16": 1e-1, "int8": 5e-2}
)
#: Of the share of integers, booleans and strings that differ.
UNEQUAL: Mapping[str | None, float] = MappingProxyType(
    {None: 1e-2, "f32": 1e-2, "f16": 5e-2, "bf16": 1e-1, "int8": 5e-2}
)


def tolerance_key(precision: str | None, *, bfloat16: bool, rounds: bool) -> str:
    """Whose tolerances hold: those of the least precise of what an EP and a model compute in.

    Args:
        precision: of the EP.
        bfloat16: the model asks for bfloat16, and some EPs do as it says; the reference computes in float32.
        rounds: the model has quantised weights or activations. ONNX Runtime and NPUs round activations to 8
            bits where weights are of few bits, each in places of its own.
    """
    kinds = [precision or "f32", *(["bf16"] if bfloat16 else []), *(["int8"] if rounds else [])]
    return max(kinds, key=lambda kind: (OVERALL[kind], kind))


class Tolerances:
    """What the errors of a variant are held to.

    Args:
        precision: key of `TOLERANCES`.
        overall: for all outputs, in place of the precision's.
        outputs: name of an output to its own.
    """

    def __init__(
        self,
        precision: str | None,
        overall: float | None = None,
        outputs: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._precision = precision
        self._overall = overall
        self._outputs = outputs

    def of(self, measured: Measured) -> float:
        """For the slices of one output."""
        said = self._said(measured)
        if said is not None:
            return said
        return (UNEQUAL if measured.measure == "unequal" else TOLERANCES)[self._precision]

    def held(self, measured: Measured) -> Measured:
        """What of an output is held to its tolerance: a user's is not widened by what the precision does."""
        return measured if self._said(measured) is None else measured.strict or measured

    def overall(self, measured: Measured) -> float:
        """For one output as a whole."""
        said = self._said(measured)
        return OVERALL[self._precision] if said is None else said

    def _said(self, measured: Measured) -> float | None:
        """What the user said of it."""
        for name, tolerance in self._outputs.items():
            if measured.name == name or measured.name.startswith((f"{name}[", f"{name}{{")):
                return tolerance
        return self._overall


def judge(compared: Compared, tolerances: Tolerances, ran_on: str) -> tuple[Numerics, str | None]:
    """The record of a comparison, and a sentence on what is off; None if nothing is.

    Args:
        compared: what came out.
        tolerances: what it is held to.
        ran_on: ``host``, ``isa-emulation`` or ``emulator``.
    """
    outputs: list[OutputNumerics] = []
    off: list[tuple[float, str]] = []
    for each in map(tolerances.held, compared.outputs):
        if each.not_compared is not None or each.measure is None:
            outputs.append(OutputNumerics(name=each.name, not_compared=each.not_compared))
            continue
        tolerance = tolerances.of(each)
        if not each.error <= tolerance:
            off.append((each.error / max(tolerance, 1e-30), _fault(each, tolerance)))
        elif not each.overall <= tolerances.overall(each):
            limit = tolerances.overall(each)
            told = f"output {each.name!r} as a whole has an error of {each.overall:.3g}"
            off.append((each.overall / max(limit, 1e-30), f"{told}; the tolerance is {limit:g}"))
        error = max(each.error, each.excused)
        # Where only the output's own noise allows an error, the limit is said that it was held to.
        limit = each.excused_to if each.excused > max(tolerance, each.error) else tolerance
        outputs.append(
            OutputNumerics(
                name=each.name,
                measure=each.measure,
                error=error,
                tolerance=limit,
                max_abs=each.max_abs,
                cosine=each.cosine,
                noise=each.noise,
                remark=_remark(each),
            )
        )
    compared_ones = [each for each in outputs if each.error is not None and each.tolerance is not None]
    worst = max(compared_ones, key=_nearness, default=None)
    numerics = Numerics(
        max_abs=max((each.max_abs for each in compared_ones if each.max_abs is not None), default=None),
        error=worst.error if worst else None,
        tolerance=worst.tolerance if worst else None,
        ran_on=ran_on,
        samples=compared.samples,
        inputs=compared.inputs,
        outputs=tuple(outputs),
    )
    if not off:
        return numerics, None
    _, told = max(off)
    more = f" (and {len(off) - 1} more of {len(outputs)} outputs)" if len(off) > 1 else ""
    return numerics, f"its numbers are off: {told}{more}; ran on {ran_on}, {_inputs(compared)}"


def _nearness(output: OutputNumerics) -> float:
    return (output.error or 0.0) / max(output.tolerance or 0.0, 1e-30)


def _inputs(compared: Compared) -> str:
    whose = "given" if compared.inputs == "given" else "made-up"
    return f"{compared.samples} {'sample' if compared.samples == 1 else 'samples'} of {whose} inputs"


def _fault(measured: Measured, tolerance: float) -> str:
    worst = measured.worst
    where = f"output {measured.name!r}" + (f", {worst.slice}," if worst and worst.slice else "")
    if measured.error < INFINITE:
        what = "of the elements that matter differ" if measured.measure == "unequal" else "of its own scale"
        kind = (
            f"{100 * measured.error:.3g} % {what}"
            if measured.measure == "unequal"
            else (f"has an error of {measured.error:.3g} {what}")
        )
        found = f"{where} {kind}; the tolerance is {tolerance:g}"
    else:
        found = f"{where} is not what the portable model gives"
    if worst is None:
        return found
    at = f"{list(worst.index)} of sample {worst.sample}" if worst.index else f"sample {worst.sample}"
    return f"{found}; worst at {at}: {worst.found} instead of {worst.expected}"


def _remark(measured: Measured) -> str | None:
    remarks = []
    if measured.undefined:
        remarks.append(
            f"{measured.undefined} elements are NaN in the portable model and numbers in the variant"
        )
    if measured.rows is not None:
        ours, theirs = measured.rows
        remarks.append(f"its rows depend on the data: {ours} where the portable model has {theirs}")
    return "; ".join(remarks) or None
