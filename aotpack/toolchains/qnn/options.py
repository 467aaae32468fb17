"""Provider options and config entries of the QNN EP that a package may set (`aotpack.selection.settings`).

Of onnxruntime-qnn 2.7.0, by the strings of its library and its log. Left out is what names a file, a folder
or a library (``backend_path``, ``qnn_saver_path``, ``qnn_ir_backend_path``, ``op_packages``,
``profiling_file_path``, ``json_qnn_graph_dir``, ``dump_qnn_ir_dlc_dir``, ``dump_qnn_ep_input_graph_dir``,
``framework_op_trace_dir``), what writes without naming (``profiling_level``, ``dump_*``,
``enable_framework_op_trace``, ``genie_log_level``), what chooses another backend than HTP
(``backend_type``), and what skips checks (``skip_qnn_version_check``, ``skip_backend_op_validation``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotpack.selection.settings import Integer, Integers, OneOf, Setting
from aotpack.toolchains.plugin import COMPILED_CONFIG

__all__ = ["ARCHITECTURES", "CONFIG", "OPTIONS", "SHARE"]

#: Versions of the Hexagon architecture that the compiler knows.
ARCHITECTURES = ("68", "69", "73", "75", "79", "81")

#: Makes sessions use one blob together: compiling and loading need it alike.
SHARE = "ep.share_ep_contexts"

#: Chips that one blob may be for.
_MOST_CHIPS = 8


class _Architectures:
    """One or several of `ARCHITECTURES`, with commas between them."""

    expected = " or ".join(ARCHITECTURES) + ", or several of them with commas between them"

    def accepts(self, value: str) -> bool:
        """Whether it names known architectures."""
        parts = value.split(",", _MOST_CHIPS)
        return len(parts) <= _MOST_CHIPS and all(part in ARCHITECTURES for part in parts)


_FLAG = OneOf(("0", "1"))

#: Provider options.
OPTIONS: Mapping[str, Setting] = MappingProxyType(
    {
        "soc_model": Setting(
            Integers(Integer(0, 999), _MOST_CHIPS), "Which chip the blob is for; a number of the SDK's table."
        ),
        "htp_arch": Setting(_Architectures(), "Which architecture the blob is for."),
        "vtcm_mb": Setting(Integer(0, 99), "How much of the NPU's own memory graphs use."),
        "device_id": Setting(Integer(0, 99), "Which of a machine's NPUs runs them."),
        "htp_performance_mode": Setting(
            OneOf(
                (
                    "burst",
                    "balanced",
                    "default",
                    "high_performance",
                    "high_power_saver",
                    "low_balanced",
                    "low_power_saver",
                    "power_saver",
                    "extreme_power_saver",
                    "sustained_high_performance",
                )
            ),
            "The NPU's clock.",
        ),
        "htp_graph_finalization_optimization_mode": Setting(
            OneOf(("0", "1", "2", "3")), "How long the compiler optimises."
        ),
        "qnn_context_priority": Setting(
            OneOf(
                (
                    "low",
                    "normal_low",
                    "normal",
                    "normal_high",
                    "high",
                    "high_plus",
                    "critical",
                    "critical_plus",
                )
            ),
            "Its turn among the graphs on the NPU.",
        ),
        "rpc_control_latency": Setting(Integer(0, 999_999), "Microseconds until the NPU's processor sleeps."),
        "enable_htp_fp16_precision": Setting(_FLAG, "Computes float32 graphs in float16."),
        "enable_htp_fp16_clamp_overflow": Setting(_FLAG, "What float16 does with what it cannot hold."),
        "htp_bf16_enable": Setting(_FLAG, "Computes in bfloat16."),
        "offload_graph_io_quantization": Setting(_FLAG, "Quantises inputs and outputs on the CPU."),
        "enable_htp_spill_fill_buffer": Setting(_FLAG, "Graphs of one blob share a buffer in memory."),
        "enable_htp_shared_memory_allocator": Setting(
            _FLAG, "Inputs and outputs lie in memory that CPU and NPU share; the driver's own allocator."
        ),
        "enable_htp_graph_splitting": Setting(_FLAG, "How the compiler divides large graphs."),
        "htp_graph_splitting_num_prepare_threads": Setting(
            Integer(0, 256), "Threads of the compiler; bounded, as they are real ones."
        ),
        "htp_reused_io_limit_mb": Setting(Integer(0, 999_999), "A bound on memory."),
        # It takes no 0: who does not want it leaves it out.
        "htp_share_resource_optimization": Setting(OneOf(("1",)), "Graphs of one blob share memory."),
        "enable_htp_monolithic_lstm": Setting(_FLAG, "How the compiler expands LSTM."),
        "enable_block_quant_weight_optimization": Setting(_FLAG, "How weights in blocks are laid out."),
        "enable_vtcm_backup_buffer_sharing": Setting(_FLAG, "Graphs of one blob share memory."),
        "extended_udma": Setting(_FLAG, "A wider address range of the NPU's DMA."),
        "disable_file_mapped_weights": Setting(_FLAG, "Reads the blob instead of mapping it; the same blob."),
    }
)

#: Session config entries.
CONFIG: Mapping[str, Setting] = MappingProxyType(
    {
        **COMPILED_CONFIG,
        SHARE: Setting(
            OneOf(("1",)),
            "Sessions of models that were compiled into one blob use it together, in this process.",
        ),
    }
)
