"""``aotpack targets``.

::

    aotpack targets
    aotpack targets --json
"""

from __future__ import annotations

from aotpack.cli import output
from aotpack.cli.options import AsJson

__all__ = ["targets"]

#: Of the targets that a reason is for.
_NAMED = 4


def targets(as_json: AsJson = False) -> None:
    """List the targets, and which can be compiled and run here."""
    from aotpack.documents.verbs import TargetDocument, TargetsDocument
    from aotpack.runtime.probing import probe
    from aotpack.targets.catalogue import catalogue
    from aotpack.toolchains import toolchains

    machine, known = probe(), toolchains()
    documents = []
    for target in catalogue(
        target for toolchain in known.values() for target in toolchain.targets()
    ).values():
        toolchain = known[target.toolchain]
        why_not = toolchain.why_not_compile(target, machine)
        runs = toolchain.how_to_run(target, machine)
        documents.append(
            TargetDocument(
                name=target.name,
                aliases=target.aliases,
                title=target.title,
                toolchain=target.toolchain,
                ep=target.ep,
                device=target.device,
                can_compile=why_not is None,
                can_run=runs.how is not None,
                runs=runs.how,
                why=why_not or runs.why or None,
            )
        )
    if as_json:
        output.print_json(TargetsDocument(targets=tuple(documents)))
        return
    lines: list[tuple[str, str, str]] = []
    for ep in dict.fromkeys(each.ep for each in documents):
        lines.append((ep, "", ""))
        lines += [
            (f"  {each.name}", _here(each.can_compile, each.runs), each.title)
            for each in documents
            if each.ep == ep
        ]
    output.table(["target", "here", "for"], lines)
    for why in dict.fromkeys(each.why for each in documents if each.why):
        names = [each.name for each in documents if each.why == why]
        shown = ", ".join(names[:_NAMED]) + (
            f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        )
        output.paragraph(f"{shown}: {why}")


def _here(can_compile: bool, runs: str | None) -> str:
    if not can_compile:
        return "no"
    return {None: "compiles", "host": "runs", "emulator": "emulated"}.get(runs, runs or "")
