"""Qualcomm's QNN for the Hexagon NPU (HTP), and its x86 emulator."""

from __future__ import annotations

import re
import shutil
from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from aotpack.machine.profile import Devices, Machine, Npu
from aotpack.machine.system import System
from aotpack.manifest.values import SessionSettings, Variant
from aotpack.selection.verdict import Code, Grade, Verdict
from aotpack.targets.catalogue import Target, catalogue
from aotpack.toolchains.base import Compiled, RunsHere
from aotpack.toolchains.generations import read_generations
from aotpack.toolchains.plugin import MODEL_NAME, PluginToolchain
from aotpack.toolchains.qnn import hexagon
from aotpack.toolchains.qnn.options import CONFIG, OPTIONS, SHARE
from aotpack.toolchains.qnn.string import BACKEND_API, EP, judge, string_for

__all__ = ["QnnToolchain"]

#: `Validation FAILED` blocks of the EP's verbose log name the node and give its reason.
_REASON = re.compile(r"REASON : (.{1,400})")
#: What follows a reason without a space, for each node that it is the reason for.
_NODE_LEFT = re.compile(r"\w{0,100} node `[^`]{0,300}(?:` will not be assigned to QNN EP\.?)?$")
#: Reasons that say nothing.
_NO_REASONS = ("", "Failed to add node")
_ERROR = re.compile(r"\[E:onnxruntime:[^\]]*\] ?(.{1,400})")


_SHARE = {SHARE: "1"}

#: A target for several architectures.
_SEVERAL = re.compile(r"qnn-htp-(v\d{2}(?:\+v\d{2})+)")


class QnnToolchain(PluginToolchain):
    """The QNN EP with its HTP backend."""

    name = "qnn"
    ep = EP
    distribution = "onnxruntime-qnn"
    module = "onnxruntime_qnn"
    extra = "qnn"
    needs_fixed_shapes = True
    shares_weights = True
    takes_custom_ops = True
    # It segfaulted in a process that had compiled before (docs/toolchains/qnn.md).
    ask_in_worker = True
    # It refuses 2-bit types and bfloat16, and computes something else with INT4 weights without
    # a zero point (an error of 2 in the range of tanh, release 2.7.0 in the emulator).
    widens = MappingProxyType(
        {"INT2": "INT4", "UINT2": "UINT4", "INT4": "INT4", "BFLOAT16": "FLOAT"},
    )
    package_options = OPTIONS
    package_config = CONFIG
    # Only its verbose log says why a node is left alone.
    compile_log_severity = 0

    def target_named(self, name: str) -> Target | None:
        """One blob for several architectures: ``qnn-htp-v73+v75``."""
        match = _SEVERAL.fullmatch(name)
        if match is None:
            return None
        by_arch = {
            target.provider_options["htp_arch"]: target
            for target in catalogue().values()
            if target.toolchain == self.name and target.generation is None
        }
        archs = read_generations(name, match[1], prefix="v", known=by_arch, what="architectures")
        chosen = [by_arch[arch] for arch in archs]
        listed = ", ".join(f"v{target.provider_options['htp_arch']}" for target in chosen)
        return chosen[-1].replace(
            name=f"qnn-htp-{listed.replace(', ', '+')}",
            aliases=(),
            title=f"Hexagon {listed} in one blob",
            specificity=60,
            provider_options={
                key: ",".join(target.provider_options[key] for target in chosen)
                for key in ("soc_model", "htp_arch")
            }
            | {"vtcm_mb": chosen[0].provider_options["vtcm_mb"]},
        )

    def session_settings(self, target: Target) -> SessionSettings:
        """A blob that several models share loads only with the option that it was made with."""
        settings = super().session_settings(target)
        if not target.shares_weights:
            return settings
        return settings.replace(config={**_SHARE, **settings.config})

    def compile_together(
        self,
        target: Target,
        models: Sequence[Path],
        folders: Sequence[Path],
        *,
        custom_ops: Sequence[Path] = (),
    ) -> tuple[Compiled, ...]:
        """Compile all `models` into one blob, which lies beside each of them.

        The EP gathers graphs as long as it is told to share, and writes the blob when told to stop, beside
        the last model and by the name that all of them refer to (docs/toolchains/qnn.md).
        """
        for index, (model, folder) in enumerate(zip(models, folders, strict=True)):
            stop = {"ep.stop_share_ep_contexts": "1"} if index == len(models) - 1 else {}
            self.compile_to(folder / MODEL_NAME, target, model, {**_SHARE, **stop}, custom_ops=custom_ops)
        blobs = [path for folder in folders for path in folder.iterdir() if path.name != MODEL_NAME]
        for blob in blobs:
            for folder in folders:
                if folder != blob.parent:
                    shutil.copyfile(blob, folder / blob.name)
        return tuple(self.compiled_in(target, folder) for folder in folders)

    def runtime_details(self) -> Mapping[str, str]:
        """The backend API of the QNN SDK in the EP's package: blobs of a newer one do not load."""
        api = BACKEND_API.get(self.version() or "")
        return {"qnn-backend-api": api} if api else {}

    def identify(self, devices: Devices, system: System) -> Devices:
        """The NPU by the chip's name."""
        return devices._replace(npus=hexagon.identify(devices.npus, system))

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
        if target.shares_weights:
            return RunsHere(None, "Qualcomm's x86 emulator cannot load a blob that several models share")
        if machine.arch == "x86_64" and "," in target.provider_options.get("htp_arch", ""):
            return RunsHere(None, "Qualcomm's x86 emulator cannot load a blob for several architectures")
        if machine.arch == "x86_64":
            return RunsHere("emulator", "no Hexagon NPU here: only in Qualcomm's x86 emulator, for checking")
        return RunsHere(None, "there is no Hexagon NPU here")

    def remarks(self, log: str) -> tuple[str, ...]:
        """The reasons out of the EP's verbose log."""
        reasons = [match[1] for match in _REASON.finditer(log)] or [
            match[1] for match in _ERROR.finditer(log)
        ]
        told = dict.fromkeys(_NODE_LEFT.sub("", reason).strip().removesuffix(".") for reason in reasons)
        return tuple(each for each in told if each not in _NO_REASONS)

    def own_options(self) -> Mapping[str, str]:
        """The HTP backend's library, which lies in the package."""
        return {"backend_path": import_module(self.module).get_qnn_htp_path()}

    def looks_at(self, variant: Variant) -> Hashable:
        """Its string, and whether it shares its blob with other models."""
        return variant.compatibility.ep_string, _shares(variant)

    def judge(self, variant: Variant, machine: Machine, *, emulate: bool) -> Verdict:
        """The EP's rules on its string (`aotpack.toolchains.qnn.string.judge`); no sharing is emulated."""
        verdict = judge(variant.compatibility.ep_string, machine, emulate=emulate)
        needs_npu = _shares(variant) and machine.npus is not None and _hexagon(machine) is None
        if not needs_npu or (
            verdict.grade is Grade.UNSUPPORTED and verdict.code is not Code.EMULATION_NOT_ASKED
        ):
            return verdict
        return verdict._replace(
            grade=Grade.UNSUPPORTED,
            code=Code.NO_DEVICE,
            reason="It shares its blob with other models, which the emulator cannot load: it needs an NPU.",
        )

    def foreseen(self, target: Target) -> str | None:
        """The string for the target's architecture and SoC and the installed release."""
        options, api = target.provider_options, BACKEND_API.get(self.version() or "")
        try:
            arch, soc = int(options["htp_arch"]), int(options["soc_model"])
            return string_for(arch, soc, int(options.get("vtcm_mb", 0)), api) if api else None
        except (KeyError, ValueError):
            # A target with several SoCs, or a third party's.
            return None


def _shares(variant: Variant) -> bool:
    return _SHARE.items() <= variant.session.config.items()


def _hexagon(machine: Machine) -> Npu | None:
    return next((npu for npu in machine.npus or () if npu.vendor == "qualcomm"), None)
