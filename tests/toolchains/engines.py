"""Build engines with TensorRT-RTX, which needs no GPU for that: prints the hex of the front of each.

``MODEL FOLDER CAPABILITIES…`` where CAPABILITIES are such as ``SM86`` or ``SM86,SM89``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorrt_rtx as rtx


def build(model: bytes, capabilities: list[str]) -> bytes:
    """The serialised engine."""
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert rtx.OnnxParser(network, logger).parse(model)
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        assert config.set_compute_capability(getattr(rtx.ComputeCapability, name), index)
    return bytes(builder.build_serialized_network(network, config))


if __name__ == "__main__":
    source = Path(sys.argv[1]).read_bytes()
    engines = [build(source, text.split(",")) for text in sys.argv[2:]]
    answer = {"release": rtx.__version__, "engines": [[e[:64].hex(), len(e)] for e in engines]}
    print("\n" + json.dumps(answer), flush=True)
