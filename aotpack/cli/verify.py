"""``aotpack verify``.

::

    aotpack verify m.aotpack
"""

from __future__ import annotations

from aotpack.cli import output
from aotpack.cli.options import AsJson, PackagePath

__all__ = ["verify"]


def verify(package: PackagePath, as_json: AsJson = False) -> None:
    """Check every byte of a package against its digest."""
    from aotpack.documents.verbs import VerifyDocument
    from aotpack.runtime.package import open_package

    with open_package(package) as opened:
        with output.progress("verifying") as progress:
            opened.verify(progress)
        document = VerifyDocument(
            package=str(package),
            digest=opened.digest,
            segments=len(opened.manifest.segments),
            size=package.stat().st_size,
        )
    if as_json:
        output.print_json(document)
    else:
        output.print_text(
            f"{package}: all {document.segments} segments ({output.size(document.size)}) are right"
        )
