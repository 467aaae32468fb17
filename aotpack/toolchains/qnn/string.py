"""The QNN EP's compatibility strings, and its rules as a function of string and machine.

Source: the EP's ``qnn_cache_compatibility_manager.cc`` (release 2.7). Its check answers on a machine with a
Hexagon NPU only, so these rules are what says here what a phone would get. tests/toolchains/test_qnn_rules.py
holds the part that the x86 emulator can confirm to real blobs of three releases.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aotpack.machine.profile import Machine, Npu
from aotpack.selection.verdict import Code, Comparison, Grade, Verdict, not_in_profile

__all__ = ["BACKEND_API", "EP", "QnnString", "judge", "string_for"]

#: As onnxruntime knows it.
EP = "QNNExecutionProvider"

#: QNN's backend API version in each release of the EP's package, read from the strings that they write.
BACKEND_API = {"2.5.0": "5.49.0", "2.6.0": "5.50.0", "2.7.0": "5.51.0"}

#: The backend's number of the HTP.
_HTP = 6

#: Blobs for an architecture below it do not run on one from it on.
_FIRST_V7X = 73

#: What a field holds at most, in the EP a uint32.
_HIGHEST = 2**32 - 1

#: One architecture, and the VTCM in MB that its graph was prepared for; 0: as much as there is.
_Graph = tuple[int, int]


@dataclass(frozen=True, slots=True)
class QnnString:
    """The string taken apart.

    ``v2:<backend>:<sdk>:<backend api>:<arch,…>:<soc,…>:<vtcm MB,…>:<user driver>``, and the first form
    ``<backend>:<sdk>:<backend api>:<blob version>:<arch>:<user driver>``.
    """

    backend: int
    sdk: tuple[int, int, int]
    backend_api: tuple[int, int, int]
    archs: tuple[int, ...]
    #: Empty in the first form, which does not compare it.
    vtcm_mb: tuple[int, ...]
    user_driver: bool

    @classmethod
    def parse(cls, text: str) -> QnnString | None:
        """None where the EP gives an error."""
        parts = text.split(":")
        try:
            if parts[0] == "v2" and len(parts) == 8:
                archs, socs, vtcm = (_numbers(part) for part in parts[4:7])
                if not len(archs) == len(socs) == len(vtcm):
                    return None
                return cls(
                    _number(parts[1]), _version(parts[2]), _version(parts[3]), archs, vtcm, parts[7] == "1"
                )
            if len(parts) == 6:
                backend, sdk, api = _number(parts[0]), _version(parts[1]), _version(parts[2])
                _version(parts[3])
                return cls(backend, sdk, api, (_number(parts[4]),), (), parts[5] == "1")
        except ValueError:
            pass
        return None


def string_for(arch: int, soc: int, vtcm_mb: int, backend_api: str) -> str:
    """What an EP writes that compiles offline for one architecture and SoC; `vtcm_mb` is 0 if not given."""
    sdk = f"2.{_version(backend_api)[1]}.0"
    return f"v2:{_HTP}:{sdk}:{backend_api}:{arch}:{soc}:{vtcm_mb}:0"


def judge(text: str | None, machine: Machine, *, emulate: bool) -> Verdict:
    """The EP's rules, in its order: backend, version, architecture and VTCM.

    The blob's backend API must not be newer than the runtime's, patch versions left aside; on a machine
    whose NPU has a user driver (the EP's detail ``user-driver``, its version) the SDK is compared with that
    instead. Exactly the same architecture and VTCM is OPTIMAL, so a blob that was compiled offline, without
    a VTCM size, never is. A lower architecture is PREFER_RECOMPILATION, but not across v73; the SoC is not
    compared. In two things this is stricter than the EP, which does not look at v73 where a string is of the
    first form, though what it takes then does not run, and which passes over empty fields.

    Args:
        text: the compatibility string; None if the blob has none.
        machine: whom for.
        emulate: the vendor's x86 emulator counts as a device; it ignores the architecture.
    """
    if text and re.match(r"v(?!2:)\d+:", text):
        return Verdict(
            Grade.UNKNOWN, Code.STRING_NEWER, "Its compatibility string is of another version than v2."
        )
    string = QnnString.parse(text) if text else None
    if string is None or string.backend != _HTP:
        return Verdict(Grade.UNSUPPORTED, Code.STRING_MALFORMED, "QNN cannot read its compatibility string.")
    version = _version_comparison(string, machine)
    if lie := _contradiction(machine):
        sentence = f"The machine profile contradicts itself: {lie}."
        return Verdict(Grade.UNKNOWN, Code.PROFILE_CONTRADICTS, sentence, (version._replace(fits=None),))
    if version.fits is False:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.RUNTIME_VERSION,
            f"It needs {version.what} {version.needed}; here it is {version.found}.",
            (version,),
        )
    npu = next((npu for npu in machine.npus or () if npu.vendor == "qualcomm"), None)
    if npu is None:
        return _without_npu(string, machine, version, emulate=emulate)
    if version.fits is None:
        return not_in_profile(version.what, (version,))
    return _on_npu(string, npu, version)


def _contradiction(machine: Machine) -> str | None:
    installed = (machine.eps or {}).get(EP)
    known = BACKEND_API.get(installed.version) if installed else None
    told = installed.details.get("qnn-backend-api", known) if installed else None
    if installed is None or told == known or known is None:
        return None
    return f"the QNN EP {installed.version} has backend API {known} and not {told}"


def _version_comparison(string: QnnString, machine: Machine) -> Comparison:
    installed = (machine.eps or {}).get(EP)
    details = installed.details if installed else {}
    driver = details.get("user-driver")
    if driver is not None or string.user_driver:
        needed, what = string.sdk, "QNN user driver"
        if driver is None:
            return Comparison(what, "none", _text(needed), False)
        found: str | None = driver
    else:
        needed, what = string.backend_api, "QNN backend API"
        known = BACKEND_API.get(installed.version) if installed else None
        found = details.get("qnn-backend-api") or known
    try:
        fits = None if found is None else needed[:2] <= _version(found)[:2]
    except ValueError:
        fits = None
    return Comparison(what, found, f"at least {_text(needed)}", fits)


def _without_npu(string: QnnString, machine: Machine, version: Comparison, *, emulate: bool) -> Verdict:
    archs = _names(string.archs)
    if machine.npus is None:
        return not_in_profile("NPU", (version, Comparison("NPU", None, archs, None)))
    compared = (version, Comparison("NPU", "no Hexagon NPU", archs, False))
    # The emulator cannot load a blob for several SoCs (docs/toolchains/qnn.md).
    if machine.arch != "x86_64" or len(string.archs) > 1:
        return Verdict(Grade.UNSUPPORTED, Code.NO_DEVICE, f"It needs a Hexagon NPU ({archs}).", compared)
    if not emulate:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.EMULATION_NOT_ASKED,
            f"It needs a Hexagon NPU ({archs}); the x86 emulator is taken only when asked for.",
            compared,
        )
    if version.fits is None:
        return not_in_profile(version.what, compared)
    return Verdict(Grade.OPTIMAL, Code.EMULATED, f"It runs in Qualcomm's x86 emulator ({archs}).", compared)


def _on_npu(string: QnnString, npu: Npu, version: Comparison) -> Verdict:
    match = re.fullmatch(r"v?(\d{2,3})", npu.architecture or "")
    architecture = "Hexagon architecture"
    if match is None:
        item = Comparison(architecture, npu.architecture, _names(string.archs), None)
        return not_in_profile(architecture, (version, item))
    own = int(match[1])
    graphs = list(zip(string.archs, string.vtcm_mb or (0,) * len(string.archs), strict=True))
    usable = [graph for graph in graphs if graph[0] <= own and not graph[0] < _FIRST_V7X <= own]
    compared = [
        version,
        Comparison(architecture, f"v{own}", _names(string.archs), bool(usable)),
    ]
    if not usable:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.OTHER_DEVICE,
            f"It was compiled for Hexagon {_names(string.archs)}; this NPU is v{own}.",
            tuple(compared),
        )
    if not string.vtcm_mb:
        # The first form of the string says nothing of VTCM.
        return _by_arch(max(usable), own, tuple(compared), exact=True)
    needed = " or ".join(dict.fromkeys(f"{vtcm} MB" if vtcm else "any" for _, vtcm in usable))
    if npu.vtcm_mb is None:
        if any(vtcm for _, vtcm in usable):
            return not_in_profile("VTCM", (*compared, Comparison("VTCM", None, needed, None)))
        return _by_arch(max(usable), own, tuple(compared), exact=False)
    fitting = [graph for graph in usable if graph[1] <= npu.vtcm_mb]
    compared.append(Comparison("VTCM", f"{npu.vtcm_mb} MB", needed, bool(fitting)))
    if not fitting:
        return Verdict(
            Grade.UNSUPPORTED,
            Code.OTHER_DEVICE,
            f"It needs {needed} of VTCM; here it is {npu.vtcm_mb} MB.",
            tuple(compared),
        )
    exact = (own, npu.vtcm_mb) in fitting
    return _by_arch((own, npu.vtcm_mb) if exact else max(fitting), own, tuple(compared), exact=exact)


def _by_arch(best: _Graph, own: int, compared: tuple[Comparison, ...], *, exact: bool) -> Verdict:
    arch, vtcm = best
    if arch != own:
        return Verdict(
            Grade.PREFER_RECOMPILATION,
            Code.OLDER_DEVICE,
            f"It was compiled for Hexagon v{arch} and runs on v{own}, slower than one compiled for it.",
            compared,
        )
    if not exact:
        given = f"for {vtcm} MB of VTCM" if vtcm else "without a VTCM size"
        return Verdict(
            Grade.PREFER_RECOMPILATION,
            Code.NOT_EXACT,
            f"It was compiled for Hexagon v{own}, {given}; the EP calls only an exact match optimal.",
            compared,
        )
    return Verdict(Grade.OPTIMAL, Code.FITS, f"It was compiled for Hexagon v{own}.", compared)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text, re.ASCII) or (value := int(text)) > _HIGHEST:
        raise ValueError(text)
    return value


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_number(part) for part in text.split(","))


def _version(text: str) -> tuple[int, int, int]:
    major, minor, patch = (_number(part) for part in text.split("."))
    return major, minor, patch


def _text(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _names(archs: tuple[int, ...]) -> str:
    return ", ".join(f"v{arch}" for arch in archs)
