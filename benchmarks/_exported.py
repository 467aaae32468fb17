"""OpenVINO's blobs where its EP lists no device, as on AMD's CPUs: exported by OpenVINO itself.

They are what the EP would store, so they serve to measure a container; no session could be made of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import onnx

__all__ = ["exported"]

#: The release that onnxruntime-ep-openvino 1.8.1 holds.
_RELEASE = "openvino==2026.4.1"

_EXPORT = """
import sys
import openvino
compiled = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
with open(sys.argv[2], "wb") as file:
    file.write(compiled.export_model().getvalue())
"""


def exported(model: Path, classes: Mapping[str, str], folder: Path) -> dict[str, tuple[Path, Path]]:
    """Compile `model` for classes of CPUs.

    Args:
        model: the ONNX file.
        classes: target to the value of ``ONEDNN_MAX_CPU_ISA`` that makes this CPU one of the class.
        folder: where OpenVINO is installed, once, and the files are written.

    Returns:
        Target to its EPContext model and the blob beside it.
    """
    library = folder / "openvino"
    if not library.exists():
        pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps")
        subprocess.run([*pip, "--target", library, _RELEASE], check=True)
    made = {}
    for target, limit in classes.items():
        blob = folder / target / "model.bin"
        blob.parent.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(library), "ONEDNN_MAX_CPU_ISA": limit}
        subprocess.run([sys.executable, "-c", _EXPORT, model, blob], check=True, env=environment)
        made[target] = _context(model, blob), blob
    return made


def _context(model: Path, blob: Path) -> Path:
    """The model whose only node names the blob."""
    graph = onnx.load(model, load_external_data=False).graph
    node = onnx.helper.make_node(
        "EPContext",
        [value.name for value in graph.input],
        [value.name for value in graph.output],
        domain="com.microsoft",
        embed_mode=0,
        ep_cache_context=blob.name,
        main_context=1,
        source="OpenVINOExecutionProvider",
    )
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "context", graph.input, graph.output)),
        path := blob.with_name("model.onnx"),
    )
    return path
