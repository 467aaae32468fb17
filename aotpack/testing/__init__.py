"""Conformance suites that third parties run in their own tests; pytest is needed when they run, not before.

::

    from aotpack.testing import ToolchainTests

    class TestAcme(ToolchainTests):
        def make(self):
            return AcmeToolchain()
"""

from aotpack.extras import require

require("build")

from aotpack.testing.toolchain import ToolchainTests

__all__ = ["ToolchainTests"]
