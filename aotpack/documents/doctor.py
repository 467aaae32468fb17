"""What ``aotpack doctor --json`` prints, as `aotpack.documents.verbs` has it of other commands."""

from __future__ import annotations

from aotpack.common.values import Value
from aotpack.documents.verbs import ComparisonDocument
from aotpack.runtime.doctor import Finding
from aotpack.toolchains.guarded import GuardedToolchain

__all__ = ["DoctorDocument", "FailedToolchainDocument", "FindingDocument"]


class FindingDocument(Value, kw_only=True):
    """What `aotpack doctor` says of one variant."""

    package: str
    component: str
    variant: str
    target: str
    #: ``fresh``: the runtime takes what built it, on whatever device it is for; ``stale``, or ``unknown``.
    state: str
    #: Why it is not fresh.
    code: str | None
    reason: str
    compared: tuple[ComparisonDocument, ...]
    built_with: dict[str, str]

    @classmethod
    def of(cls, finding: Finding, *, package: str) -> FindingDocument:
        """The document for a finding."""
        return cls(
            package=package,
            component=finding.component,
            variant=finding.variant.id,
            target=finding.variant.target,
            state=finding.state,
            code=finding.code and finding.code.value,
            reason=finding.reason,
            compared=ComparisonDocument.all_of(finding.verdict),
            built_with=finding.variant.built_with,
        )


class FailedToolchainDocument(Value, kw_only=True):
    """A third party's toolchain that failed, so that nobody can say what its variants are worth."""

    name: str
    #: The package that brought it, with its version.
    distribution: str
    reason: str

    @classmethod
    def of(cls, toolchain: GuardedToolchain) -> FailedToolchainDocument:
        """The document for a toolchain that failed."""
        return cls(
            name=toolchain.name,
            distribution=toolchain.distribution,
            reason=toolchain.failure or toolchain.trouble or "",
        )


class DoctorDocument(Value, kw_only=True):
    """``aotpack doctor --json``."""

    findings: tuple[FindingDocument, ...]
    #: Of the toolchains that are installed.
    failed_toolchains: tuple[FailedToolchainDocument, ...] = ()
