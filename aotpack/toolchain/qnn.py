"""Qualcomm's QNN for the Hexagon NPU (HTP), and its x86 emulator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from aotpack.machine import Machine, Npu
from aotpack.manifest import Variant
from aotpack.target import Target
from aotpack.toolchain.base import RunsHere
from aotpack.toolchain.plugin import PluginToolchain
from aotpack.verdict import Code, Comparison, Grade, Verdict

__all__ = ["BACKEND_API", "QnnString", "QnnToolchain"]

#: QNN's backend API version in each release of the EP's package, read from the strings that they write.
BACKEND_API = {"2.5.0": "5.49.0", "2.6.0": "5.50.0", "2.7.0": "5.51.0"}

#: `Validation FAILED` blocks of the EP's verbose log name the node and give its reason.
_REASON = re.compile(r"REASON : (.{1,400})")
_ERROR = re.compile(r"\[E:onnxruntime:[^\]]*\] ?(.{1,400})")


_FLAG = "0|1"

#: Of the EP in onnxruntime-qnn 2.7.0 (the strings of its library), without those that name files or other
#: backends than HTP, which no package can hold.
_OPTIONS = MappingProxyType(
    {
        "soc_model": r"[0-9]{1,3}(,[0-9]{1,3})*",
        "htp_arch": r"(68|69|73|75|79|81)(,(68|69|73|75|79|81))*",
        "vtcm_mb": r"[0-9]{1,2}",
        "device_id": r"[0-9]{1,2}",
        "htp_performance_mode": "burst|balanced|default|high_performance|high_power_saver|low_balanced|"
        "low_power_saver|power_saver|extreme_power_saver|sustained_high_performance",
        "htp_graph_finalization_optimization_mode": "0|1|2|3",
        "qnn_context_priority": "low|normal|normal_high|high",
        "rpc_control_latency": r"[0-9]{1,6}",
        "enable_htp_fp16_precision": _FLAG,
        "enable_htp_fp16_clamp_overflow": _FLAG,
        "htp_bf16_enable": _FLAG,
        "offload_graph_io_quantization": _FLAG,
        "enable_htp_spill_fill_buffer": _FLAG,
        "enable_htp_shared_memory_allocator": _FLAG,
        "enable_htp_graph_splitting": _FLAG,
        "enable_htp_monolithic_lstm": _FLAG,
        "enable_block_quant_weight_optimization": _FLAG,
        "enable_vtcm_backup_buffer_sharing": _FLAG,
        "extended_udma": _FLAG,
        "disable_file_mapped_weights": _FLAG,
    }
)


@dataclass(frozen=True, slots=True)
class QnnString:
    """A ``v2`` compatibility string: ``v2:backend:sdk:backend api:archs:socs:vtcm MB:user driver``."""

    backend: str
    sdk: str
    backend_api: tuple[int, ...]
    archs: tuple[int, ...]
    socs: tuple[int, ...]
    vtcm_mb: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> QnnString | None:
        """None if it is not of this form."""
        parts = text.split(":")
        if len(parts) != 8 or parts[0] != "v2":
            return None
        try:
            return cls(
                backend=parts[1],
                sdk=parts[2],
                backend_api=_numbers(parts[3], "."),
                archs=_numbers(parts[4], ","),
                socs=_numbers(parts[5], ","),
                vtcm_mb=_numbers(parts[6], ","),
            )
        except ValueError:
            return None


def _numbers(text: str, separator: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(separator) if len(part) <= 9)


class QnnToolchain(PluginToolchain):
    """The QNN EP with its HTP backend."""

    name = "qnn"
    ep = "QNNExecutionProvider"
    distribution = "onnxruntime-qnn"
    module = "onnxruntime_qnn"
    extra = "qnn"
    needs_fixed_shapes = True
    widens = MappingProxyType({"INT2": "INT4", "UINT2": "UINT4"})
    options = _OPTIONS
    # Only its verbose log says why a node is left alone.
    compile_log_severity = 0

    def runtime_details(self) -> Mapping[str, str]:
        """The backend API of the QNN SDK in the EP's package: blobs of a newer one do not load."""
        api = BACKEND_API.get(self.version() or "")
        return {"qnn-backend-api": api} if api else {}

    def why_not_compile(self, target: Target, machine: Machine) -> str | None:
        """Its compiler is in the package for x86-64 and for Windows on arm64."""
        if missing := super().why_not_compile(target, machine):
            return missing
        if machine.arch == "x86_64" or machine.os == "windows":
            return None
        return "QNN compiles on x86-64, or on Windows on arm64"

    def how_to_run(self, target: Target, machine: Machine) -> RunsHere:
        """On an NPU of the target's architecture, else in the emulator on x86-64."""
        if machine.eps is None or self.ep not in machine.eps:
            return RunsHere(None, f"{self.distribution} is not installed ({self.pip_command()})")
        if _hexagon(machine) is not None:
            return RunsHere("host")
        if machine.arch == "x86_64":
            return RunsHere("emulator", "no Hexagon NPU here: only in Qualcomm's x86 emulator, for checking")
        return RunsHere(None, "there is no Hexagon NPU here")

    def remarks(self, log: str) -> tuple[str, ...]:
        """The reasons out of the EP's verbose log."""
        reasons = [match[1] for match in _REASON.finditer(log)] or [
            match[1] for match in _ERROR.finditer(log)
        ]
        return tuple(dict.fromkeys(reason.strip() for reason in reasons))

    def own_options(self) -> Mapping[str, str]:
        """The HTP backend's library, which lies in the package."""
        return {"backend_path": import_module(self.module).get_qnn_htp_path()}

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """The EP's rules on its v2 string (source: QnnEpFactory's compatibility check; FACTS.md, 1, QNN HTP).

        The blob's backend API must not be newer than the runtime's; architecture and VTCM equal is
        OPTIMAL, lower PREFER_RECOMPILATION, higher UNSUPPORTED, and a v6x blob on v7x UNSUPPORTED. The
        SoC is not compared. The emulator ignores the architecture.
        """
        text = variant.compatibility.ep_string
        string = QnnString.parse(text) if text else None
        if text and re.match(r"v(?!2:)\d+:", text):
            return Verdict(
                Grade.UNKNOWN, Code.STRING_NEWER, "Its compatibility string is of another version than v2."
            )
        if string is None or not string.archs:
            return Verdict(
                Grade.UNSUPPORTED, Code.STRING_MALFORMED, "QNN cannot read its compatibility string."
            )
        compared = [self._backend_api(string, machine)]
        if compared[0].fits is False:
            return Verdict(
                Grade.UNSUPPORTED,
                Code.RUNTIME_VERSION,
                f"It needs QNN's backend API {compared[0].needed}; here it is {compared[0].found}.",
                tuple(compared),
            )
        npu = _hexagon(machine)
        if npu is None:
            return self._without_npu(string, machine, emulate, compared)
        if compared[0].fits is None:
            return Verdict(
                Grade.UNKNOWN,
                Code.NOT_IN_PROFILE,
                "The version of QNN's backend API on the machine is not known.",
                tuple(compared),
            )
        return _on_npu(string, npu, compared)

    def _backend_api(self, string: QnnString, machine: Machine) -> Comparison:
        installed = (machine.eps or {}).get(self.ep)
        found = installed.details.get("qnn-backend-api") if installed else None
        needed = ".".join(map(str, string.backend_api))
        fits = None if found is None else string.backend_api <= _numbers(found, ".")
        return Comparison(
            "QNN backend API", found, f"at least {needed}" if fits is not False else needed, fits
        )

    def _without_npu(
        self, string: QnnString, machine: Machine, emulate: bool, compared: list[Comparison]
    ) -> Verdict:
        archs = _names(string.archs)
        if machine.npus is None:
            compared.append(Comparison("NPU", None, archs, None))
            return Verdict(
                Grade.UNKNOWN,
                Code.NOT_IN_PROFILE,
                "The machine profile does not say its NPU.",
                tuple(compared),
            )
        compared.append(Comparison("NPU", "no Hexagon NPU", archs, False))
        if machine.arch != "x86_64" or len(string.archs) > 1:
            # The emulator cannot load a blob for several SoCs (FACTS.md, 1).
            return Verdict(
                Grade.UNSUPPORTED, Code.NO_DEVICE, f"It needs a Hexagon NPU ({archs}).", tuple(compared)
            )
        if emulate:
            return Verdict(
                Grade.OPTIMAL,
                Code.EMULATED,
                f"It runs in Qualcomm's x86 emulator ({archs}).",
                tuple(compared),
            )
        return Verdict(
            Grade.UNSUPPORTED,
            Code.EMULATION_NOT_ASKED,
            f"It needs a Hexagon NPU ({archs}); the x86 emulator is taken only when asked for.",
            tuple(compared),
        )


def _hexagon(machine: Machine) -> Npu | None:
    return next((npu for npu in machine.npus or () if npu.vendor == "qualcomm"), None)


def _names(archs: tuple[int, ...]) -> str:
    return ", ".join(f"v{arch}" for arch in archs)


def _on_npu(string: QnnString, npu: Npu, compared: list[Comparison]) -> Verdict:
    match = re.fullmatch(r"v?(\d{2,3})", npu.architecture or "")
    if match is None:
        compared.append(Comparison("Hexagon architecture", None, _names(string.archs), None))
        return Verdict(
            Grade.UNKNOWN,
            Code.NOT_IN_PROFILE,
            "The machine profile does not say its Hexagon architecture.",
            tuple(compared),
        )
    own = int(match[1])
    # A blob for several SoCs holds a graph for each: the best one for this NPU counts.
    usable = [arch for arch in string.archs if arch <= own and (arch >= 70 or own < 70)]
    compared.append(Comparison("Hexagon architecture", f"v{own}", _names(string.archs), bool(usable)))
    if not usable:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.OTHER_DEVICE,
            f"It was compiled for Hexagon {_names(string.archs)}; this NPU is v{own}.",
            tuple(compared),
        )
    best = max(usable)
    vtcm = string.vtcm_mb[string.archs.index(best)] if len(string.vtcm_mb) == len(string.archs) else 0
    if vtcm and npu.vtcm_mb is not None:
        compared.append(Comparison("VTCM", f"{npu.vtcm_mb} MB", f"{vtcm} MB", vtcm <= npu.vtcm_mb))
        if vtcm > npu.vtcm_mb:
            return Verdict(
                Grade.UNSUPPORTED,
                Code.OTHER_DEVICE,
                f"It needs {vtcm} MB of VTCM; here it is {npu.vtcm_mb} MB.",
                tuple(compared),
            )
    if best == own and not (vtcm and npu.vtcm_mb is not None and vtcm < npu.vtcm_mb):
        return Verdict(Grade.OPTIMAL, Code.FITS, f"It was compiled for Hexagon v{own}.", tuple(compared))
    return Verdict(
        Grade.PREFER_RECOMPILATION,
        Code.OLDER_DEVICE,
        f"It was compiled for Hexagon v{best} and runs on v{own}, slower than one compiled for it.",
        tuple(compared),
    )
