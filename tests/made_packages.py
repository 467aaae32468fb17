"""Manifests of variants that were never compiled: what is chosen among them is what is looked at."""

from __future__ import annotations

from aotpack.manifest.values import Compatibility, Component, Requirements, SessionSettings, Source, Variant
from aotpack.targets.catalogue import PORTABLE, find
from aotpack.toolchains import toolchains

__all__ = ["NEWEST_OPENVINO", "component", "portable", "variant"]

#: The release inside the OpenVINO EP that the known machines have.
NEWEST_OPENVINO = "2026.4.1"


def variant(name: str, text: str | None = None, *, called: str | None = None) -> Variant:
    """A variant for a target of the catalogue, with this compatibility string."""
    target = find(name)
    return Variant(
        id=called or f"{target.name}-0",
        target=target.name,
        toolchain=target.toolchain,
        ep=target.ep,
        device=target.device,
        specificity=target.specificity,
        compatibility=Compatibility(ep_string=text, requires=target.requires),
        session=SessionSettings(),
    )


def portable() -> Variant:
    """The untouched ONNX."""
    return variant(PORTABLE).replace(compatibility=Compatibility(requires=Requirements()), id=PORTABLE)


def component(*variants: Variant) -> Component:
    """A component of these."""
    source = Source(sha256="a" * 64, size=1, opsets={"": 17})
    assert {each.toolchain for each in variants} <= {*toolchains(), "nobody"}
    return Component(name="main", source=source, inputs=(), outputs=(), variants=variants)
