"""Models as compilers take them: shapes fixed, inputs made constant, types widened, attention lowered."""
