"""FlexAttention, lowered, beside every other way to run it on a CPU: times and ratios, measured in one run.

    python -m benchmarks.flex [--lengths 1024,4096] [--cases causal,document] [--threads 2] [--repeats 7]
                              [--memory] [--torch]

All ways of a case take turns, so that what else the machine does hits all of them alike; each runs for a
while before the run that counts. Printed are the median and, as what the machine can do undisturbed, the
least of the repeats, and the least CPU time, which with one thread hardly depends on what else runs.
torch.compile is measured if asked for and installed. Memory is the growth of the peak resident size in a
process of its own for each way.
"""

from __future__ import annotations

import argparse
import functools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime as ort

from aotpack import flex
from aotpack.errors import FlexError
from aotpack.flex.capabilities import Lowering
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains

BATCH, HEADS, SIZE = 1, 8, 64
OURS = "aotpack"

#: What ONNX Runtime's CPU EP has.
CPU = toolchains()["ort"].flex_capabilities(find("ort-cpu"))

CASES: dict[str, Callable[[int], flex.Mod | None]] = {
    "plain": lambda s: None,
    "causal": lambda s: flex.causal(),
    "window+softcap": lambda s: flex.sliding_window(s // 8) & flex.softcap(30.0),
    "document": lambda s: flex.document(np.repeat(np.arange(16), s // 16)),
    "prefix-lm": lambda s: flex.prefix_lm(s // 8),
    "natten1d": lambda s: flex.natten1d(s // 16 + 1, s),
    "natten2d": lambda s: flex.natten2d(13, s // 64, 64),
    "alibi+causal": lambda s: flex.alibi(HEADS) & flex.causal(),
    "softcap": lambda s: flex.softcap(30.0),
}


def ways(case: str, length: int) -> dict[str, tuple[bytes, str]]:
    """Each way to run a case: a model, and what was chosen."""
    model = flex.attention((BATCH, HEADS, length, SIZE), score_mod=CASES[case](length))
    found = {}
    wanted: dict[str, tuple[flex.Capabilities, Lowering | None]] = {
        OURS: (CPU, None),
        "function body": (flex.Capabilities(), "function"),
        **{
            op.name: (replace(CPU, fused_ops=frozenset({op})), "fused")
            for op in sorted(CPU.fused_ops, key=lambda op: op.name)
        },
    }
    for name, (capabilities, lowering) in wanted.items():
        try:
            lowered, (record,) = flex.lower(model, capabilities, options=flex.Options(lowering=lowering))
        except FlexError:
            continue
        found[name] = (lowered.SerializeToString(), f"{record.lowering}: {record.why}")
    return found


def session(model: bytes, threads: int) -> ort.InferenceSession:
    """A session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)


def inputs(length: int) -> dict[str, np.ndarray]:
    """Q, K and V."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((BATCH, HEADS, length, SIZE)).astype(np.float32) for name in "QKV"}


def compiled_by_torch(
    case: str, length: int, feeds: dict[str, np.ndarray], threads: int
) -> Callable[[], np.ndarray] | None:
    """The case through torch.compile and its BlockMask; None where torch has no such mod."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    masks = {
        "causal": lambda b, h, q, k: q >= k,
        "window+softcap": lambda b, h, q, k: (q >= k) & (q - k < length // 8),
        "document": lambda b, h, q, k: q // (length // 16) == k // (length // 16),
        "prefix-lm": lambda b, h, q, k: (k < length // 8) | (q >= k),
        "alibi+causal": lambda b, h, q, k: q >= k,
    }
    changes = {
        "window+softcap": lambda score, b, h, q, k: torch.tanh(score / 30.0) * 30.0,
        "softcap": lambda score, b, h, q, k: torch.tanh(score / 30.0) * 30.0,
        "alibi+causal": lambda score, b, h, q, k: score - (q - k).abs() * torch.exp2(-(h + 1.0)),
    }
    if case not in {"plain", *masks, *changes}:
        return None
    torch.set_num_threads(threads)
    torch._dynamo.reset()
    tensors = [torch.from_numpy(feeds[name]) for name in "QKV"]
    block = (
        create_block_mask(masks[case], None, None, length, length, device="cpu") if case in masks else None
    )
    compiled = torch.compile(flex_attention)

    def run() -> np.ndarray:
        with torch.no_grad():
            return compiled(*tensors, score_mod=changes.get(case), block_mask=block).numpy()

    return run


def first_output(own: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Run a session."""
    output: np.ndarray = own.run(None, feeds)[0]
    return output


def measure(case: str, length: int, asked: argparse.Namespace) -> None:
    """Print the table of one case."""
    feeds = inputs(length)
    models = ways(case, length)
    runs: dict[str, Callable[[], np.ndarray]] = {}
    for name, (model, _) in models.items():
        own = session(model, asked.threads)
        runs[name] = functools.partial(first_output, own, feeds)
    if asked.torch and (compiled := compiled_by_torch(case, length, feeds, asked.threads)) is not None:
        runs["torch.compile"] = compiled
    results = {name: run() for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    of_cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(asked.repeats):
        for name, run in runs.items():
            # The threads of the last one spin for a while, and those of this one take milliseconds to wake.
            time.sleep(0.02)
            warm = time.perf_counter() + 0.03
            run()
            while time.perf_counter() < warm:
                run()
            start, start_of_cpu = time.perf_counter(), time.process_time()
            run()
            of_cpu[name].append(1e3 * (time.process_time() - start_of_cpu))
            times[name].append(1e3 * (time.perf_counter() - start))
    print(f"\n{case}, S {length}: {models[OURS][1]}; {len(models[OURS][0]) / 1024:.0f} KiB")
    print(
        "| way | median ms | least ms | least CPU ms | median / ours | least / ours | CPU / ours "
        "| max difference |\n|---|---|---|---|---|---|---|---|"
    )
    ours = statistics.median(times[OURS]), min(times[OURS]), min(of_cpu[OURS])
    for name in runs:
        found = statistics.median(times[name]), min(times[name]), min(of_cpu[name])
        error = float(np.abs(results[name] - results[OURS]).max())
        numbers = [f"{value:.1f}" for value in found]
        ratios = [f"{value / base:.2f}" for value, base in zip(found, ours, strict=True)]
        print("|", " | ".join([name, *numbers, *ratios, f"{error:.0e}"]), "|", flush=True)


def peak(case: str, length: int, way: str, threads: int) -> None:
    """Print by how much one way makes the peak resident size grow, in MiB."""
    feeds = inputs(length)
    model, _ = ways(case, length)[way]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    own = session(model, threads)
    for _ in range(2):
        own.run(None, feeds)
    print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f}")


def memory(case: str, lengths: list[int]) -> None:
    """Print how memory grows with the length."""
    print(f"\n{case}: growth of the peak resident size, MiB\n| S | way | MiB |\n|---|---|---|")
    for length in lengths:
        for way in ways(case, length):
            command = [sys.executable, "-m", "benchmarks.flex", "--peak", way]
            command += ["--cases", case, "--lengths", str(length)]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            print(f"| {length} | {way} | {found} |", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="1024,4096")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    lengths = [int(length) for length in asked.lengths.split(",")]
    for case in asked.cases.split(","):
        if asked.peak:
            peak(case, lengths[0], asked.peak, asked.threads)
        elif asked.memory:
            memory(case, lengths)
        else:
            for length in lengths:
                measure(case, length, asked)


if __name__ == "__main__":
    main()
