"""``aotpack targets``."""

from __future__ import annotations

from aotpack.cli import output
from aotpack.cli.options import AsJson

__all__ = ["targets"]


def targets(as_json: AsJson = False) -> None:
    """List the targets, and which can be compiled and run here."""
    from aotpack.documents import TargetDocument, TargetsDocument
    from aotpack.machine import probe
    from aotpack.target import catalogue
    from aotpack.toolchain import toolchains

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
    output.table(
        ["target", "device", "compile", "run here", "for"],
        [
            [each.name, each.device, "yes" if each.can_compile else "no", each.runs or "no", each.title]
            for each in documents
        ],
    )
    reasons = dict.fromkeys(each.why for each in documents if each.why)
    for reason in reasons:
        names = [each.name for each in documents if each.why == reason]
        output.print_text(f"{', '.join(names)}: {reason}")
