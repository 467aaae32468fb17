"""The costs that choose how FlexAttention is lowered on a CPU, measured on this machine beside those in use.

    python -m benchmarks.flex_costs [--threads 2] [--repeats 15]

Those of plain ops are constants of `aotpack/flex/choose.py` and `tiles.py`, `node_cost` and those of fused
ops are in `aotpack/toolchains/ort/toolchain.py`. All are in units of the time of one score: the two products
and the softmax of one query, one key and one head of 64. A cost need not be right to the last digit: it
decides between ways that are a few per cent apart. A negative one says that the machine was too busy to
measure: ask for more repeats.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from aotpack import flex
from aotpack.errors import FlexError
from aotpack.flex import choose
from aotpack.flex import tiles as tile_costs
from aotpack.flex.capabilities import Lowering
from benchmarks.flex import BATCH, CPU, HEADS, SIZE, inputs

SHORT, LONG = 1024, 4096


class Machine:
    """Times models, on a machine that does other things too.

    A run of many milliseconds is hardly ever undisturbed, a node of some microseconds mostly is. So the time
    of a model is put together from the least time of each of its nodes, and of each pause before one.
    """

    def __init__(self, threads: int, repeats: int) -> None:
        self.threads, self.repeats = threads, repeats

    def times(self, models: list[onnx.ModelProto]) -> list[float]:
        """The seconds of each; they take turns."""
        with tempfile.TemporaryDirectory() as folder:
            runs = [self._opened(model, f"{folder}/{at}") for at, model in enumerate(models)]
            for _ in range(self.repeats):
                for own, feeds in runs:
                    own.run(None, feeds)
            return [self._least(Path(own.end_profiling())) for own, _ in runs]

    def _opened(
        self, model: onnx.ModelProto, prefix: str
    ) -> tuple[ort.InferenceSession, dict[str, np.ndarray]]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        own = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        return own, inputs(model.graph.input[0].type.tensor_type.shape.dim[2].dim_value)

    def _least(self, profile: Path) -> float:
        events = json.loads(profile.read_text())
        nodes = [event for event in events if event["name"].endswith("_kernel_time")]
        spans = np.array([(event["ts"], event["dur"]) for event in nodes]).reshape(self.repeats, -1, 2)
        pauses = spans[:, 1:, 0] - spans[:, :-1].sum(axis=2)
        return 1e-6 * float(spans[..., 1].min(axis=0).sum() + pauses.min(axis=0).sum())


def lowered(length: int, mod: flex.Mod | None, lowering: Lowering, **options: Any) -> onnx.ModelProto:
    """A model lowered in one way."""
    model = flex.attention((BATCH, HEADS, length, SIZE), score_mod=mod)
    return flex.lower(model, CPU, options=flex.Options(lowering=lowering, **options))[0]


def tiles(machine: Machine) -> dict[str, float]:
    """The unit in seconds, and what packing, caches and nodes cost, by least squares over tilings."""
    models, rows = [], []
    for length in (SHORT, 2 * SHORT):
        for high in (64, 128, 256):
            for heads in (1, 2, 4, 8):
                model = lowered(length, flex.causal(), "block-sparse", block=(high, 64), kv_heads=heads)
                keys = np.arange(high, length + 1, high)
                doublings = np.log2(np.maximum(heads * high * keys * 4 / choose.NEAR, 1))
                scores = HEADS * high * keys
                models.append(model)
                rows.append(
                    [scores.sum(), HEADS * keys.sum(), (scores * doublings).sum(), len(model.graph.node)]
                )
    seconds = np.array(machine.times(models))
    # Relative errors count: short runs matter as much as long ones.
    weighted = np.array(rows) / seconds[:, None]
    unit, packing, far, node = np.linalg.lstsq(weighted, np.ones(len(rows)), rcond=None)[0]
    return {"unit": unit, "PACKING": packing / unit, "FAR": far / unit, "node_cost": node / unit}


def fused(machine: Machine, op: flex.FusedOp, unit: float) -> dict[str, float]:
    """What one fused op costs; only what it can do."""
    target = replace(CPU, fused_ops=frozenset({op}))
    options = flex.Options(lowering="fused")
    mods = {"plain": None, "causal": flex.causal(), "softcap": flex.softcap(30.0)}
    mods["both"] = flex.causal() & flex.softcap(30.0)
    models = {}
    for name, mod in mods.items():
        for length in (SHORT, LONG):
            model = flex.attention((BATCH, HEADS, length, SIZE), score_mod=mod)
            try:
                models[name, length] = flex.lower(model, target, options=options)[0]
            except FlexError:
                continue
    times = dict(zip(models, machine.times(list(models.values())), strict=True))
    # In scores, of all of them: a mask does not make a score cheaper here, it is the op that skips it.
    scores = {key: seconds / unit / (HEADS * key[1] ** 2) for key, seconds in times.items()}
    base = "plain" if ("plain", LONG) in scores else "causal"
    row_cost = (scores[base, SHORT] - scores[base, LONG]) / (1 / SHORT - 1 / LONG)
    found = {"cost": scores[base, LONG] - row_cost / LONG, "row_cost": row_cost}
    if ("causal", LONG) in scores and base == "plain":
        found["mask_cost"] = scores["causal", LONG] - scores["plain", LONG]
    capped = "softcap" if base == "plain" else "both"
    if (capped, LONG) in scores:
        found["softcap_cost"] = scores[capped, LONG] - scores[base, LONG]
    return found


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    asked = parser.parse_args()
    machine = Machine(asked.threads, asked.repeats)
    print("| cost | in use | measured here |\n|---|---|---|")
    plain = tiles(machine)
    unit = plain.pop("unit")
    in_use = {"PACKING": choose.PACKING, "FAR": choose.FAR, "node_cost": CPU.node_cost}
    window = flex.sliding_window(LONG // 8)
    whole: dict[str, Any] = {"lowering": "block-sparse", "block": (64, 64), "kv_heads": 8}
    with_cap, without = machine.times(
        [lowered(LONG, mod, **whole) for mod in (window & flex.softcap(30.0), window)]
    )
    plain["PASS"], in_use["PASS"] = (with_cap / without - 1) / 2, tile_costs.PASS
    dense = dict(
        zip((SHORT, LONG), machine.times([lowered(s, None, "dense") for s in (SHORT, LONG)]), strict=True)
    )
    each = {length: seconds / unit / (HEADS * length**2) for length, seconds in dense.items()}
    plain["DENSE"], in_use["DENSE"] = each[SHORT], choose.DENSE
    plain["SPILL"], in_use["SPILL"] = each[LONG] / each[SHORT], choose.SPILL
    body = machine.times([lowered(LONG, flex.causal(), "dense")])[0] / unit / (HEADS * LONG**2)
    plain["WHERE"], in_use["WHERE"] = body / each[LONG] - 1, choose.WHERE
    for name, value in plain.items():
        print(f"| {name} | {in_use[name]:g} | {value:.3g} |", flush=True)
    for op in sorted(CPU.fused_ops, key=lambda op: op.name):
        for name, value in fused(machine, op, unit).items():
            print(f"| {op.name}.{name} | {getattr(op, name):g} | {value:.3g} |", flush=True)
    print(f"\nThe unit is {1e9 * unit:.3f} ns with {asked.threads} threads.")


if __name__ == "__main__":
    main()
