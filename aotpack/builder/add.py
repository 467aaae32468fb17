"""One more target for a package that is there already, compiled from the portable ONNX that it holds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aotpack.builder.build import build
from aotpack.builder.report import BuildReport
from aotpack.builder.spec import TargetSpec
from aotpack.cache.variants import Cache
from aotpack.container.model_files import check_packaged_model
from aotpack.container.partial import check_writable
from aotpack.errors import UsageError
from aotpack.files.scratch import scratch_folder
from aotpack.manifest.model_check import ANY_DOMAIN, Allowance
from aotpack.runtime.edit import adopt
from aotpack.runtime.package import open_package
from aotpack.selection.shapes import Wanted
from aotpack.targets.catalogue import PORTABLE

__all__ = ["add"]


def add(
    package: Path,
    *,
    targets: Iterable[str | TargetSpec],
    output: Path | None = None,
    component: str | None = None,
    shapes: Wanted | None = None,
    keep_going: bool = False,
    force: bool = False,
    cache: Cache | None = None,
    **settings: Any,
) -> BuildReport:
    """Compile a component of a package for more targets and write the package with them.

    Args:
        package: the package, which is left as it is unless it is `output`.
        targets: as `aotpack.build` takes them.
        output: the package to write; by default `package`, replaced in one step.
        component: whose portable ONNX is compiled; by default the first one's.
        shapes: as `aotpack.build` takes them.
        keep_going: as for `aotpack.build`.
        force: replace a file at `output` that is not a package, too.
        cache: of results of builds; by default the user's.
        settings: passed on to `aotpack.build`.

    Raises:
        OutputError: the package cannot be written, which is found out before anything is compiled.
        UsageError: the component has no portable variant.
        BuildFailed: as for `aotpack.build`; what did not fail was added if `keep_going`, else nothing was.
    """
    target = output or package
    check_writable(target, force=force)
    with open_package(package, cache=cache) as opened, scratch_folder("add") as scratch:
        grown = opened.component(component)
        portable = next((variant for variant in grown.variants if variant.target == PORTABLE), None)
        if portable is None:
            raise UsageError(
                "has no portable variant to compile from",
                where=f"{package}: component {grown.name}",
                hint="build it again with `aotpack build`",
            )
        check_packaged_model(opened.reader, portable, Allowance(domains=ANY_DOMAIN))
        model, *_ = opened.extract(portable.id, scratch / "portable", component=grown.name)
        built = scratch / "added.aotpack"
        report = build(
            model,
            targets=targets,
            output=built,
            shapes=shapes,
            name=grown.name,
            portable=False,
            keep_going=keep_going,
            cache=opened.cache,
            **settings,
        )
        with open_package(built) as other:
            adopt(opened.reader, grown, other.reader, target, force=force)
    return report.replace(package=str(target), size=target.stat().st_size)
