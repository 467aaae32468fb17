"""Compile for the CPU, ask about strings or load blobs, with whatever release of the OpenVINO EP is here.

``compile MODEL FOLDER`` prints the compatibility string. ``judge FOLDER…`` prints for each folder what the
EP's own check says of its string (null where it raises), and whether its model loads: JSON on the last line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import onnxruntime as ort
import onnxruntime_ep_openvino as openvino
from onnxruntime.capi import _pybind_state as state

EP = "OpenVINOExecutionProvider"

#: Without it the classes below AVX-512 do not load.
CONFIG = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "f32"}})


def _options(device: ort.OrtEpDevice) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_provider_for_devices([device], {"load_config": CONFIG})
    return options


def _compile(device: ort.OrtEpDevice, model: str, folder: str) -> str:
    output = Path(folder) / "model.onnx"
    output.parent.mkdir(parents=True)
    ort.ModelCompiler(
        _options(device),
        model,
        embed_compiled_data_into_model=False,
        flags=ort.OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED,
        graph_optimization_level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    ).compile_to_file(str(output))
    return state.get_compatibility_info_from_model(str(output), EP)


def _judge(device: ort.OrtEpDevice, folders: list[str]) -> list[tuple[str | None, bool]]:
    judged: list[tuple[str | None, bool]] = []
    for folder in folders:
        text = state.get_compatibility_info_from_model(f"{folder}/model.onnx", EP)
        try:
            said = state.get_model_compatibility_for_ep_devices([device], text).name
        except Exception as error:
            print(error, file=sys.stderr)
            said = None
        options = _options(device)
        options.add_session_config_entry("session.disable_model_compile", "1")
        try:
            ort.InferenceSession(f"{folder}/model.onnx", options, enable_fallback=0)
            loads = True
        except Exception as error:
            print(error, file=sys.stderr)
            loads = False
        judged.append((said, loads))
    return judged


if __name__ == "__main__":
    ort.register_execution_provider_library(EP, openvino.get_library_path())
    (first, *_) = [each for each in ort.get_ep_devices() if each.ep_name == EP]
    verb, *rest = sys.argv[1:]
    answer = _compile(first, *rest) if verb == "compile" else _judge(first, rest)
    print("\n" + json.dumps(answer), flush=True)
    os._exit(0)
