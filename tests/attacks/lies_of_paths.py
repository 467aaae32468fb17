"""Paths and names lie."""

from __future__ import annotations

import json
from collections.abc import Callable

from aotpack import errors
from tests.attacks.forge import Forgery
from tests.attacks.lie import refused

_PATHS = {
    "parent": ("../model.bin", "leaves its folder"),
    "parent_inside": ("a/../../model.bin", "leaves its folder"),
    "absolute": ("/etc/cron.d/model", "leaves its folder"),
    "dot": ("./model.bin", "leaves its folder"),
    "double_slash": ("a//model.bin", "leaves its folder"),
    "folder": ("model/", "leaves its folder"),
    "empty": ("", "has 0 characters"),
    "drive_letter": ("C:/model.bin", "a character that not every system allows"),
    "drive_relative": ("C:model.bin", "a character that not every system allows"),
    "backslash": ("..\\model.bin", "a character that not every system allows"),
    "share": ("\\\\host\\share", "a character that not every system allows"),
    "stream": ("model.bin:hidden", "a character that not every system allows"),
    "nul": ("model.bin\0.txt", "a character that not every system allows"),
    "newline": ("model\n.bin", "a character that not every system allows"),
    "device": ("weights/NUL", "which not every system allows"),
    "device_with_extension": ("aux.bin", "which not every system allows"),
    "device_with_spaces": ("weights/nul   .bin", "which not every system allows"),
    "device_in_superscript": ("COM¹.bin", "which not every system allows"),
    "device_in_full_width": ("\uff2e\uff35\uff2c", "which not every system allows"),
    "device_with_what_nobody_sees": ("n\u200bul", "which not every system allows"),
    "console": ("CONIN$", "which not every system allows"),
    "c1_control": ("a\x9b31mb", "a character that not every system allows"),
    "right_to_left": ("a\u202ennxo.exe", "a character that not every system allows"),
    "line_separator": ("a\u2028b", "a character that not every system allows"),
    "byte_order_mark": ("\ufeffmodel.bin", "a character that not every system allows"),
    "trailing_dot": ("model.bin.", "which not every system allows"),
    "trailing_space": ("model.bin ", "which not every system allows"),
    "long_part": ("x" * 256, "which not every system allows"),
    "long": ("x/" * 600 + "x", "has 1201 characters"),
    "decomposed": ("mode\u0301le.bin", "not in Unicode normal form C"),
    "case_twin": ("MODEL.onnx", "is the same name"),
    "folded_twin": ("ﬁle", "is the same name"),
    "long_s_twin": ("mo\u017fel.onnx", "is the same name"),
    "kelvin_twin": ("\u212a.onnx", "not in Unicode normal form C"),
    "ignorable_twin": ("mo\u200ddel.onnx", "is the same name"),
    "full_width_twin": ("\uff4dodel.onnx", "is the same name"),
    "iota_twin": ("\u1fb2", "is the same name"),
    "final_sigma_twin": ("ς", "is the same name"),
    "file_in_a_file": ("model.onnx/weights.bin", "lies inside another file"),
    "file_in_a_file_by_case": ("Model.Onnx/weights.bin", "lies inside another file"),
}


#: What the other file is called, where a path is the same name as that.
_OTHERS = {
    "folded_twin": "file",
    "long_s_twin": "mosel.onnx",
    "iota_twin": "\u1f70\u03b9",
    "final_sigma_twin": "Σ",
}


def _path_lie(name: str, path: str) -> Callable[[Forgery], None]:
    def tell(it: Forgery) -> None:
        it.files[1]["path"] = path
        it.files[0]["path"] = _OTHERS.get(name, it.files[0]["path"])

    tell.__name__ = f"path_{name}"
    return tell


for _name, (_path, _match) in _PATHS.items():
    refused(errors.ManifestError, _match)(_path_lie(_name, _path))


def _many_files(it: Forgery, path: Callable[[int], str]) -> None:
    """As many as four variants and the length of a manifest allow, none with the path of another."""
    it.manifest["components"][0]["variants"] = [
        {
            **it.variant,
            "id": f"v{v}",
            "files": [{**it.files[0], "path": path(v * 3800 + f)} for f in range(3800)],
        }
        for v in range(4)
    ]


@refused(errors.ManifestError, r"segments\[0\]: belongs to no file")
def folders_in_folders_in_folders(it: Forgery) -> None:
    _many_files(it, lambda number: "a/" * 460 + str(number))


@refused(errors.ManifestError, r"not in Unicode normal form C \(and 19 more at least\)")
def paths_that_are_slow_to_normalise(it: Forgery) -> None:
    _many_files(it, lambda number: f"{number}a" + "\u0315\u0300\u0316\u031b" * 100)
    it.text = json.dumps(it.manifest, separators=(",", ":"), ensure_ascii=False).encode()


@refused(errors.ManifestError, r"\.\.\. has a character that not every system allows")
def path_too_long_to_be_shown(it: Forgery) -> None:
    it.files[1]["path"] = "?" * 1024


@refused(errors.ManifestError, r"components\[0\]\.name: .*matching regex")
def component_named_like_a_path(it: Forgery) -> None:
    it.manifest["components"][0]["name"] = "../main"


@refused(errors.ManifestError, r"components\[0\]\.name: 'nul' is no name of a file on Windows")
def component_named_like_a_device(it: Forgery) -> None:
    it.manifest["components"][0]["name"] = "nul"


@refused(errors.ManifestError, r"name: 'tiny.' is no name of a file on Windows")
def package_named_with_a_dot_behind(it: Forgery) -> None:
    it.manifest["name"] = "tiny."


@refused(errors.ManifestError, r"variants\[0\]\.id: 'Com1\.x-2' is no name of a file on Windows")
def variant_named_like_a_device(it: Forgery) -> None:
    it.variant["id"] = "Com1.x-2"


@refused(errors.ManifestError, r"variants\[0\]\.id: .*matching regex")
def variant_named_with_a_line_end(it: Forgery) -> None:
    it.variant["id"] = "ort-cpu\n"


@refused(errors.ManifestError, r"variants\[1\]: 'ORT-cpu' is the same name")
def variants_that_differ_by_case(it: Forgery) -> None:
    variants = it.manifest["components"][0]["variants"]
    variants.append({**it.variant, "id": "ORT-cpu"})
