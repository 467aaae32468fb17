"""Provider options of the OpenVINO EP that a package may set, and keys of its ``load_config``.

Of onnxruntime-ep-openvino 1.8.1 and OpenVINO 2026.4 (openvino.ai, "Supported properties"). ``load_config``
passes any property on to OpenVINO, so its keys are a list of their own. Left out is what names a file, a
folder or a library (``CACHE_DIR``, ``WEIGHTS_PATH``, ``CONFIG_FILE``, ``NPU_COMPILER_TYPE``), what takes a
pointer (``MODEL_PTR``, ``CACHE_ENCRYPTION_CALLBACKS``, shared contexts and queues), what logs, counts or
dumps (``LOG_LEVEL``, ``PERF_COUNT``, ``NPUW_*``), free text for a compiler
(``NPU_COMPILATION_MODE_PARAMS``, ``DEVICE_PROPERTIES``), and of the provider options ``cache_dir``,
``dump_subgraphs`` and ``device_type``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotpack.selection.settings import Integer, JsonSections, OneOf, Setting

__all__ = ["OPTIONS", "PROPERTIES"]

_BOOLEAN = OneOf(("true", "false", "True", "False"))
_SWITCH = OneOf(("YES", "NO", "true", "false", "True", "False"))
_LEVEL = OneOf(("LOW", "MEDIUM", "HIGH"))
_PRIORITY = OneOf(("LOW", "MEDIUM", "HIGH", "DEFAULT"))
#: Of threads and streams, which are real ones: more than any machine has cores is a mistake or an attack.
_MOST = 1024

#: Keys of ``load_config``, which OpenVINO calls properties.
PROPERTIES: Mapping[str, Setting] = MappingProxyType(
    {
        "INFERENCE_PRECISION_HINT": Setting(
            OneOf(("f32", "f16", "bf16", "dynamic")), "What it computes in; blobs load with what made them."
        ),
        "EXECUTION_MODE_HINT": Setting(
            OneOf(("PERFORMANCE", "ACCURACY")), "Whether precision may be lowered."
        ),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": Setting(
            Integer(0, 2**64 - 1), "How activations that meet quantised weights are rounded."
        ),
        "KV_CACHE_PRECISION": Setting(
            OneOf(("f32", "f16", "bf16", "u8", "i8", "u4", "i4")), "How the states of a model are stored."
        ),
        "PERFORMANCE_HINT": Setting(
            OneOf(("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")), "What it is scheduled for."
        ),
        "PERFORMANCE_HINT_NUM_REQUESTS": Setting(Integer(0, _MOST), "How many runs at once it prepares for."),
        "NUM_STREAMS": Setting(Integer(1, _MOST), "Runs at once."),
        "INFERENCE_NUM_THREADS": Setting(Integer(0, _MOST), "Threads of a run."),
        "COMPILATION_NUM_THREADS": Setting(Integer(1, _MOST), "Threads of its compiler."),
        "ENABLE_HYPER_THREADING": Setting(_SWITCH, "Which cores threads run on."),
        "ENABLE_CPU_PINNING": Setting(_SWITCH, "Whether threads stay on their cores."),
        "SCHEDULING_CORE_TYPE": Setting(
            OneOf(("ANY_CORE", "PCORE_ONLY", "ECORE_ONLY")), "Which cores threads run on."
        ),
        "MODEL_PRIORITY": Setting(_PRIORITY, "Its turn among the models on the device."),
        "GPU_QUEUE_PRIORITY": Setting(_LEVEL, "Its turn among the queues of the GPU."),
        "GPU_QUEUE_THROTTLE": Setting(_LEVEL, "How busily the CPU waits for the GPU."),
        "GPU_ENABLE_SDPA_OPTIMIZATION": Setting(_SWITCH, "Which of its kernels computes attention."),
        "GPU_DISABLE_WINOGRAD_CONVOLUTION": Setting(_SWITCH, "Which of its kernels computes convolutions."),
        "NPU_TURBO": Setting(_SWITCH, "The NPU's clock."),
        "NPU_TILES": Setting(Integer(1, 64), "How many of the NPU's tiles a blob uses."),
    }
)

#: Provider options.
OPTIONS: Mapping[str, Setting] = MappingProxyType(
    {
        "load_config": Setting(
            JsonSections(("CPU", "GPU", "NPU"), PROPERTIES),
            "Properties of OpenVINO, of the list above alone.",
        ),
        "num_of_threads": Setting(Integer(0, _MOST), "Threads of a run."),
        "num_streams": Setting(Integer(0, _MOST), "Runs at once."),
        "model_priority": Setting(_PRIORITY, "Its turn among the models on the device."),
        "enable_qdq_optimizer": Setting(_BOOLEAN, "Whether pairs of QDQ nodes are removed for NPUs."),
        "enable_opencl_throttling": Setting(_BOOLEAN, "How busily the CPU waits for the GPU."),
    }
)
