"""The page on FlexAttention does what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "flex.md"


def test_code_blocks_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 5
    exec("\n".join(blocks), {})
