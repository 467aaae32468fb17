"""Real models and targets: what is built, and how far it is off, as the table of docs/models.md.

    python -m benchmarks.models [--models ppocr_det,magika] [--targets ort-cpu,webgpu] [--rows FOLDER]
                                [--write PAGE]

Prints Markdown: the table, then a note for each variant that was refused or of which there is more to know.
Exits with 1 where an outcome is not the one that samples/real_builds.toml explains. A whole run takes about
half an hour on two cores, most of it WebGPU's, on a GPU in software that Debian's chromium brings along; with
``--rows`` a run that was interrupted goes on with the next model.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

import msgspec

from aotpack.builder.report import Row
from aotpack.runtime.probing import probe
from aotpack.targets.catalogue import find
from aotpack.toolchains import toolchains
from samples import software_gpu
from samples.real_builds import TARGETS, RealBuild, build_real, known, outcome, surprise

_BEGIN, _END = "<!-- begin of what benchmarks.models prints -->\n", "<!-- end -->\n"
#: Of what aotpack says, in characters.
_LONGEST = 320
#: What the table says by itself.
_NOT_RUN = re.compile(r"Not run here: [^.]*\. ?")
_DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-ep-openvino",
    "onnxruntime-qnn",
    "onnxruntime-ep-webgpu",
    "tensorrt-rtx-cu12",
)


def main() -> int:
    """Print the table, or put it into a page; 1 if an outcome was not expected."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description="What becomes of real models on each target."
    )
    parser.add_argument("--models", help="names in samples/real_builds.toml, with commas; by default all")
    parser.add_argument("--targets", help=f"some of {','.join(TARGETS)}; by default all")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put it into this page instead")
    parser.add_argument("--rows", type=Path, metavar="FOLDER", help="keep rows here, and take those that are")
    asked = parser.parse_args()
    os.environ.update(software_gpu.environment() or {})
    models = asked.models.split(",") if asked.models else list(known())
    targets = [target for target in TARGETS if target in (asked.targets or ",".join(TARGETS)).split(",")]
    here = [target for target in targets if _why_not(target) is None]

    lines, notes, surprises = [], [], []
    for name in models:
        real = known()[name]
        rows = {row.target: row for row in _rows(real, here, asked.rows)}
        lines.append(_line(real, targets, rows))
        notes += [note for row in rows.values() if (note := _note(real, row)) is not None]
        surprises += [text for row in rows.values() if (text := surprise(real, row)) is not None]
        print(f"{name}: done", file=sys.stderr, flush=True)
    page = _page(targets, lines, notes)
    if asked.write is None:
        print(page, end="")
    else:
        before, _, rest = asked.write.read_text(encoding="utf-8").partition(_BEGIN)
        after = rest.partition(_END)[2]
        asked.write.write_text(before + _BEGIN + page + _END + after, encoding="utf-8")
    for text in surprises:
        print(f"not as samples/real_builds.toml says: {text}", file=sys.stderr)
    return 1 if surprises else 0


def _rows(real: RealBuild, targets: Sequence[str], kept: Path | None) -> list[Row]:
    """What became of a model, built now or, where `kept` has it, before."""
    file = kept / f"{real.name}.json" if kept else None
    if file is not None and file.exists():
        return msgspec.json.decode(file.read_bytes(), type=list[Row])
    with tempfile.TemporaryDirectory() as folder:
        rows = build_real(real, targets, Path(folder), reuse=False)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    return rows


def _why_not(target: str) -> str | None:
    wanted = find(target)
    return toolchains()[wanted.toolchain].why_not_compile(wanted, probe())


def _page(targets: Sequence[str], lines: Sequence[str], notes: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in _DISTRIBUTIONS)
    machine = probe()
    head = "| model | as it is used | " + " | ".join(targets) + " |\n"
    rule = "|---|---|" + "---|" * len(targets) + "\n"
    return (
        f"{date.today()}, {machine.os} {machine.arch}, {machine.cpu.vendor}; {versions}.\n\n"
        + head
        + rule
        + "".join(line + "\n" for line in lines)
        + "\n"
        + "".join(f"- {note}\n" for note in notes)
    )


def _line(real: RealBuild, targets: Sequence[str], rows: Mapping[str, Row]) -> str:
    sizes = "; ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in real.shapes.items())
    cells = [_cell(rows[target]) if target in rows else "not here" for target in targets]
    return f"| `{real.name}` | {real.what}: {sizes} | " + " | ".join(cells) + " |"


def _cell(row: Row) -> str:
    state = outcome(row)
    if state != "built":
        return f"**{state}**"
    if row.numerics is None:
        return "not run"
    error = "not compared" if row.numerics.error is None else f"{row.numerics.error:.1e}"
    part = row.coverage
    # The portable variant is compiled on the user's machine.
    if row.target == "portable" or part is None or part.compiled == part.nodes:
        return error
    return f"{error} ({part.compiled} of {part.nodes} nodes)"


def _note(real: RealBuild, row: Row) -> str | None:
    """What is to be known of a variant; None where the table says it all."""
    explained = real.refused.get(row.target) or real.fails.get(row.target) or real.remarks.get(row.target)
    said = _NOT_RUN.sub("", row.reason or "")
    if not said and explained is None:
        return None
    # Some name every node that stays on the CPU.
    quoted = (
        f' aotpack says: "{textwrap.shorten(said, _LONGEST, placeholder=" …").rstrip(".")}".' if said else ""
    )
    return f"`{real.name}` for `{row.target}`: **{outcome(row)}**.{quoted} {explained or ''}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
