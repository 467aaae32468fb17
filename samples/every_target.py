"""The build file of every target (every_target.toml beside this) with its models, in a folder to build in::

python -m samples.every_target build-output/every-target
aotpack build build-output/every-target/every_target.toml --keep-going --report report.html
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from samples.quantised import quantise
from samples.real_models import fetch

__all__ = ["BUILD_FILE", "lay_out"]

BUILD_FILE = Path(__file__).with_suffix(".toml")


def lay_out(folder: Path) -> Path:
    """Put a copy of the build file and its models into `folder`; the path of the copy."""
    folder.mkdir(parents=True, exist_ok=True)
    model = Path(shutil.copy(fetch("magika"), folder / "magika.onnx"))
    quantise(model, folder / "magika-int8.onnx", {"bytes": (1, 2048)})
    return Path(shutil.copy(BUILD_FILE, folder))


if __name__ == "__main__":
    print(lay_out(Path(sys.argv[1])))
