"""Compile for the HTP, or run what was compiled, with whatever release of the EP this interpreter has.

``compile MODEL FOLDER ARCH:SOC…`` prints the compatibility strings, and ``run FOLDER…`` for each folder
whether its model loads and runs in the emulator: a JSON document on the last line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import onnxruntime_qnn as qnn
from onnxruntime.capi import _pybind_state as state

EP = "QNNExecutionProvider"


def _options(device: ort.OrtEpDevice, **provider_options: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_provider_for_devices([device], {"backend_path": qnn.get_qnn_htp_path(), **provider_options})
    return options


def _compile(device: ort.OrtEpDevice, model: str, folder: str, pairs: list[str]) -> dict[str, str]:
    written = {}
    for pair in pairs:
        arch, soc = pair.split(":")
        output = Path(folder) / arch / "model.onnx"
        output.parent.mkdir(parents=True)
        ort.ModelCompiler(
            _options(device, htp_arch=arch, soc_model=soc),
            model,
            embed_compiled_data_into_model=False,
            flags=ort.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED,
            graph_optimization_level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        ).compile_to_file(str(output))
        written[arch] = state.get_compatibility_info_from_model(str(output), EP)
    return written


def _run(device: ort.OrtEpDevice, folders: list[str]) -> list[bool]:
    ran = []
    for folder in folders:
        options = _options(device)
        options.add_session_config_entry("session.disable_model_compile", "1")
        try:
            session = ort.InferenceSession(f"{folder}/model.onnx", options, enable_fallback=0)
            session.disable_fallback()
            (value,) = session.get_inputs()
            session.run(None, {value.name: np.zeros(value.shape, np.float32)})
            ran.append(True)
        except Exception as error:
            print(error, file=sys.stderr)
            ran.append(False)
    return ran


if __name__ == "__main__":
    ort.register_execution_provider_library(EP, qnn.get_library_path())
    (first, *_) = [each for each in ort.get_ep_devices() if each.ep_name == EP]
    verb, *rest = sys.argv[1:]
    answer = _compile(first, rest[0], rest[1], rest[2:]) if verb == "compile" else _run(first, rest)
    print("\n" + json.dumps(answer), flush=True)
    os._exit(0)
