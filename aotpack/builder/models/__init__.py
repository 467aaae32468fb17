"""Models as compilers take them: shapes fixed, inputs made constant, types widened, attention lowered."""

from aotpack.extras import require

__all__: list[str] = []

require("build")
