"""``aotpack tune``.

::

    aotpack tune m.aotpack
    aotpack tune m.aotpack --runs 200 --json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.cli import output
from aotpack.cli.choice import takes_policy
from aotpack.cli.options import AsJson, ComponentName, CustomOps, PackagePath
from aotpack.common.sizes import parse_size

if TYPE_CHECKING:
    from aotpack.runtime.tuning import Measurement
    from aotpack.selection.policy import Policy

__all__ = ["tune"]


@takes_policy("devices", "ep", "emulate")
def tune(
    package: PackagePath,
    component: ComponentName = None,
    runs: Annotated[int, typer.Option(min=3, help="Timed runs of each variant, at most.")] = 50,
    time_limit: Annotated[float, typer.Option(metavar="SECONDS", help="For each variant's process.")] = 300.0,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="For each variant's process.", show_default="90 % of the machine's"
        ),
    ] = None,
    custom_ops: CustomOps = None,
    as_json: AsJson = False,
    *,
    policy: Policy,
) -> None:
    """Measure every variant that fits here, for `select --measured`."""
    from aotpack.builder.spec import Limits
    from aotpack.builder.tune import tune as tune_package
    from aotpack.runtime.package import open_package
    from aotpack.selection.custom_ops import checked_libraries

    memory = None if memory_limit is None else parse_size(memory_limit, "--memory-limit")
    with open_package(package) as opened:
        tuning = tune_package(
            opened,
            component=component,
            policy=policy,
            runs=runs,
            limits=Limits(seconds=time_limit, memory=memory),
            custom_ops=checked_libraries(custom_ops or (), where="--custom-ops"),
            on_measured=lambda item: output.note(f"measured {item.variant}"),
        )
    if as_json:
        output.print_json(tuning)
        return
    order = sorted(tuning.measurements, key=lambda item: (item.run_seconds is None, item.run_seconds or 0.0))
    output.table(
        ["variant", "load", "first run", "then", "memory"],
        [_cells(item) for item in order],
        right=["load", "first run", "then", "memory"],
    )
    for item in order:
        if item.failure is not None:
            output.paragraph(f"{item.variant}: {item.failure}")


def _cells(item: Measurement) -> list[str]:
    times = (item.load_seconds, item.first_run_seconds, item.run_seconds)
    return [
        item.variant,
        *("" if seconds is None else f"{seconds * 1e3:.2f} ms" for seconds in times),
        "" if item.peak_memory is None else output.size(item.peak_memory),
    ]
