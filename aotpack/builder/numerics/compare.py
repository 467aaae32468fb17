"""A variant beside the reference: runs in the worker that has loaded its EP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from msgspec import Meta

from aotpack.builder.numerics.measure import INFINITE, Comparison, Measured, Worst
from aotpack.builder.numerics.reference import ReferenceMeta, noise_of
from aotpack.builder.numerics.values import ArrayFile, compare_all, feeds_of, leaves
from aotpack.common.values import Count, Value
from aotpack.manifest.values import MAX_NODES

__all__ = ["Compared", "compare_with"]

#: Seconds after which no further sample is run: an emulator takes seconds for each.
_SECONDS = 5.0


class Compared(Value, kw_only=True):
    """A variant's outputs beside the reference's. What they are held to is decided later (`judge`)."""

    samples: Count
    #: Whose they are: ``given`` by the user, or ``made``.
    inputs: Literal["given", "made"]
    outputs: Annotated[tuple[Measured, ...], Meta(max_length=MAX_NODES)] = ()


class _Session(Protocol):
    def run(self, output_names: Sequence[str], input_feed: dict[str, Any]) -> list[Any]: ...

    def get_inputs(self) -> list[Any]: ...

    def get_outputs(self) -> list[Any]: ...


def compare_with(session: _Session, reference: Path, *, precision: str | None) -> Compared:
    """Run a variant on the samples of a reference.

    Args:
        session: on the variant. What its runs raise goes through.
        reference: the file that `make_reference` wrote.
        precision: that the variant computes in.
    """
    started = time.monotonic()
    with ArrayFile(reference) as file:
        meta = ReferenceMeta.from_json(file.get("meta").tobytes())
        ours = [value.name for value in session.get_outputs()]
        # Some EPs name outputs anew; their order is the model's.
        same = set(ours) == set(meta.outputs) or len(ours) != len(meta.outputs)
        names = list(meta.outputs) if same else ours
        missing = [name for name in names if name not in ours]
        known = [value.name for value in session.get_inputs()]
        comparisons: dict[str, Comparison] = {}
        samples = 0
        for sample in range(meta.samples):
            outputs = session.run(
                [name for name in names if name not in missing],
                feeds_of(file.under(f"{sample}/in/"), known),
            )
            samples += 1
            results = dict(zip([name for name in names if name not in missing], outputs, strict=True))
            for index, name in enumerate(names):
                if name in missing or f"{index}/" in meta.unknown:
                    continue
                wanted = [
                    (path, array)
                    for path, array in file.under(f"{sample}/out/{index}/")
                    if f"{index}/{path}" not in meta.random
                ]
                varies = any(f"{index}/{path}" in meta.varies for path, _ in wanted)
                for path, mine, theirs in compare_all(leaves(results[name]), wanted) if wanted else ():
                    if f"{index}/{path}" in meta.random:
                        continue
                    key = f"{index}/{path}"
                    if key not in comparisons:
                        comparisons[key] = Comparison(
                            meta.outputs[index] + path,
                            varies=varies,
                            probability=meta.outputs[index] in meta.probabilities,
                        )
                    comparisons[key].add(mine, theirs)
            if time.monotonic() - started > _SECONDS:
                break
        measured = {
            key: _measured(each, file, meta, key, precision or "f32") for key, each in comparisons.items()
        }
    return Compared(samples=samples, inputs=meta.inputs, outputs=tuple(_ordered(meta, missing, measured)))


def _measured(
    comparison: Comparison, file: ArrayFile, meta: ReferenceMeta, key: str, precision: str
) -> Measured:
    found = comparison.measured(noise_of(file, meta, precision, key), precision)
    if precision == "f32" or found.not_compared is not None:
        return found
    return found.replace(strict=comparison.measured(noise_of(file, meta, "f32", key), "f32"))


def _ordered(
    meta: ReferenceMeta, missing: Sequence[str], measured: dict[str, Measured]
) -> Sequence[Measured]:
    """In the order of the model's outputs, those among them that were not compared."""
    found: list[Measured] = []
    for index, name in enumerate(meta.outputs):
        if name in missing:
            worst = Worst(sample=0, index=(), found="no such output", expected=name)
            found.append(Measured(name=name, measure="relative", error=INFINITE, worst=worst))
            continue
        if f"{index}/" in meta.unknown:
            found.append(Measured(name=name, not_compared=meta.unknown[f"{index}/"]))
        why = "it differs between two runs of the portable model: it draws random numbers"
        found += [
            Measured(name=name + key.removeprefix(f"{index}/"), not_compared=why)
            for key in meta.random
            if key.startswith(f"{index}/")
        ]
        found += [each for key, each in measured.items() if key.startswith(f"{index}/")]
    return found
