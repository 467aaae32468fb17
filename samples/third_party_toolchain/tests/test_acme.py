"""What aotpack asks of a toolchain, asked of this one."""

from __future__ import annotations

from aotpack_acme import AcmeToolchain

from aotpack.testing import ToolchainTests
from aotpack.toolchains.base import Toolchain


class TestAcme(ToolchainTests):
    ep_strings = ("acme:1:x86_64", "acme:1:aarch64", "acme:2:x86_64")

    def make(self) -> Toolchain:
        return AcmeToolchain()
