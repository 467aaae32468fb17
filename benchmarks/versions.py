"""Load and selection beside an earlier version of aotpack, in turns in one run.

    git worktree add /tmp/before 628f42e
    python -m benchmarks.versions /tmp/before [--rounds 41]

Both versions run on the same packages, which the earlier one wrote, in a process each that lives throughout.
A cold load puts the variant together into an empty cache; the folders are made before and removed after the
clock runs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from benchmarks.load import row
from samples.made_models import transformer
from samples.real_models import fetch

#: Runs in the checkout that is its first argument, so that all modules are that version's.
BUILD = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import aotpack
from benchmarks.load import build, many
folder = Path(sys.argv[2])
silero = build(Path(sys.argv[3]), folder / "silero-vad.aotpack", {"input": (1, 576)})
build(Path(sys.argv[4]), folder / "transformer.aotpack", {})
many(silero, folder / "many.aotpack", 1000)
"""

#: Answers each line of its input, a job and a package, with the seconds that it took.
WORKER = """
import os, shutil, sys, tempfile, time
sys.path.insert(0, sys.argv[1])
import aotpack
assert os.path.realpath(aotpack.__file__).startswith(os.path.realpath(sys.argv[1])), aotpack.__file__

def select(path):
    with aotpack.open(path) as opened:
        assert opened.select().chosen is not None

warm = tempfile.mkdtemp(dir=sys.argv[2])
for line in sys.stdin:
    job, path = line.split()
    cold = tempfile.mkdtemp(dir=sys.argv[2]) if job == "cold" else None
    os.environ["AOTPACK_CACHE"] = os.path.join(cold or warm, "cache")
    started = time.perf_counter()
    session = select(path) if job == "select" else aotpack.load(path)
    seconds = time.perf_counter() - started
    del session
    if cold:
        shutil.rmtree(cold)
    print("took", seconds, flush=True)
"""

ROWS = (
    ("warm", "silero-vad"),
    ("warm", "transformer"),
    ("cold", "silero-vad"),
    ("cold", "transformer"),
    ("select", "many"),
)


def worker(checkout: Path, scratch: Path) -> Callable[[str], float]:
    """A process of one version, as a function of a job and a package."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, checkout, scratch],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=scratch,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    given, told = process.stdin, process.stdout

    def run(line: str) -> float:
        print(line, file=given, flush=True)
        # Libraries of vendors print lines of their own.
        answer = next((text for text in told if text.startswith("took ")), None)
        if answer is None:
            raise SystemExit(f"{checkout}: the worker ended at {line}")
        return float(answer.split()[1])

    return run


def main() -> None:
    """Build with the earlier version, and measure both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout of the earlier version")
    parser.add_argument("--rounds", type=int, default=41, help="measurements of each version")
    arguments = parser.parse_args()
    now = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["AOTPACK_CACHE"] = str(folder / "cache")
        large = folder / "transformer.onnx"
        onnx.save(transformer(), large)
        model = fetch("silero_vad_16k_sequence")
        built = [sys.executable, "-c", BUILD, arguments.before.resolve(), folder, model, large]
        subprocess.run(built, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        versions = [worker(path, folder) for path in (arguments.before.resolve(), now)]
        row("what", "before", "now", "ratio, median of rounds")
        row("---", "---:", "---:", "---:")
        for job, package in ROWS:
            line = f"{job} {folder / package}.aotpack"
            seconds: list[list[float]] = [[], []]
            for number in range(arguments.rounds + 1):
                for which in (0, 1) if number % 2 else (1, 0):
                    took = versions[which](line)
                    if number:  # the first round does not count
                        seconds[which].append(took)
            ratio = statistics.median(new / old for old, new in zip(*seconds, strict=True))
            before, after = (statistics.median(each) for each in seconds)
            row(f"{job} {package}", f"{before * 1e3:.2f} ms", f"{after * 1e3:.2f} ms", f"{ratio:.3f}")


if __name__ == "__main__":
    main()
