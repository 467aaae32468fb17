"""Texts that somebody else wrote, as data: build files, machine profiles, and what a package says."""

from __future__ import annotations

import json

__all__ = ["BUILD_FILES", "ENVIRONMENTS", "PROFILES", "SAYINGS"]

_OK = 'name = "p"\n[[component]]\nname = "main"\nmodel = "m.onnx"\n[[target]]\ntarget = "ort-cpu"\n'
_MODEL = 'model = "m.onnx"'


def _component(line: str) -> str:
    return _OK.replace(_MODEL, f"{_MODEL}\n{line}")


#: Content, and a regular expression of what the error says.
BUILD_FILES: dict[str, tuple[str | bytes, str]] = {
    "dotted-key": (_OK + "a" + ".a" * 80_000 + "=1", "line 7: a key has too many parts"),
    "dotted-key-in-an-inline-table": ("x={y={" + "a." * 40_000 + "a=1}}", "line 1: a key has too many parts"),
    "dotted-key-quoted": ("'a'" + '."a"' * 40_000 + "=1", "line 1: a key has too many parts"),
    "dotted-header": ("[" + "a." * 40_000 + "a]", "line 1: a key has too many parts"),
    "dotted-header-of-an-array": ("[[" + "a . " * 40_000 + "a]]", "line 1: a key has too many parts"),
    "deep-array": (_OK + "x=" + "[" * 200_000, "line 7: nested too deeply"),
    "deep-inline-table": (_OK + "x=" + "{a=" * 100_000, "line 7: nested too deeply"),
    "deep-mixture": (_OK + "x=" + "[{a=" * 100_000, "line 7: nested too deeply"),
    "many-tables": ("".join(f"[t{i}]\n" for i in range(90_000)), "too many keys and values"),
    "many-keys": ("".join(f"k{i}=1\n" for i in range(90_000)), "too many keys and values"),
    "many-items": ("x=[" + "1," * 90_000 + "]", "line 1: too many keys and values"),
    "many-unknown-keys": (_OK + "".join(f"k{i}=1\n" for i in range(40_000)), "unknown key"),
    "long-integer": (_OK + "x=" + "9" * 5000, "line 7: a number of 5000 characters"),
    "long-hex": (_OK + "x=0x" + "f" * 5000, "line 7: a number of 5002 characters"),
    "long-float": (_OK + "x=1e" + "9" * 5000, "line 7: a number of 5002 characters"),
    "long-date": (_OK + "x=1979-05-27 07:32:00." + "1" * 5000, "line 7: a number of"),
    "long-underscores": (_OK + "x=" + "1_" * 5000 + "1", "line 7: a number of"),
    "long-file": ("#" * 2_000_000, "is too large"),
    "long-key": (_OK + "k" * 900_000 + "=1", "unknown key"),
    "nul": (_OK + '\nx="\0"', "line 8: is not TOML"),
    "nul-byte-file": (b"\0" * 1000, "is not TOML"),
    "latin-1": (_OK.encode() + b"# \xff\n", "line 7: is not UTF-8; found the byte 0xff"),
    "utf-16": (_OK.encode("utf-16"), "is UTF-16; expected UTF-8"),
    "half-a-pair": (_OK + 'x="\\ud800"', "line 7: is not TOML"),
    "unterminated": (_OK + 'x="""', "line 7: is not TOML"),
    "twice": ('name="q"\n' + _OK, "line 2: is not TOML: Cannot overwrite"),
    "control-in-a-key": (_OK + '"\\u001b[31mk"=1\n', r"line 7, .*\\x1b\[31mk: unknown key"),
    "bidi-in-a-key": (_OK + '"\\u202ek"=1\n', r"\\u202ek: unknown key"),
    "size": (_component("shapes = { x = [4611686018427387904, 64] }"), "line 5, .*shapes"),
    "size-of-many-digits": (_component("shapes = { x = 99999999999999999999999 }"), "line 5, .*shapes"),
    "size-below-zero": (_component("shapes = { x = [-1, 64] }"), "line 5, .*shapes"),
    "rank": (_component("shapes = { x = [" + "1," * 65 + "] }"), "line 5, .*shapes"),
    "elements": (_component("shapes = { x = [2147483647, 2147483647] }"), "line 5, .*elements"),
    "constant-nan": (_component("constants = { x = nan }"), "line 5, .*constants"),
    "constant-inf": (_component("constants = { x = -inf }"), "line 5, .*constants"),
    "many-buckets": (
        _component("buckets={" + ",".join(f"b{i}={{}}" for i in range(3000)) + "}"),
        "line 5, .*buckets",
    ),
    "seconds-inf": (_OK + "[limits]\nseconds = inf\n", r"line 8, limits\.seconds"),
    "seconds-nan": (_OK + "[limits]\nseconds = nan\n", r"line 8, limits\.seconds"),
    "seconds-huge": (_OK + "[limits]\nseconds = 1e300\n", "is no time limit"),
    "memory-huge": (_OK + "[limits]\nmemory = 0x7fffffffffffffff\n", r"line 8, limits\.memory"),
    "tolerance-nan": ("tolerance = nan\n" + _OK, "line 1, tolerance"),
    "tolerance-inf": ("tolerance = inf\n" + _OK, "line 1, tolerance"),
    "output-nul": ('output = "a\\u0000b"\n' + _OK, "line 1, output: .*without control characters"),
    "output-escape": ('output = "\\u001b[31mx"\n' + _OK, "line 1, output: .*without control characters"),
    "output-bidi": ('output = "a\\u202ex"\n' + _OK, "line 1, output: .*without control characters"),
    "output-long": (f'output = "{"x/" * 4000}"\n' + _OK, "line 1, output"),
    "output-empty": ('output = ""\n' + _OK, "line 1, output"),
    "output-is-the-build-file": ('output = "build.toml"\n' + _OK, "build.toml"),
    "model-nul": (_OK.replace("m.onnx", "m\\u0000.onnx"), r"line 4, component\[0\]\.model"),
    "model-is-a-folder": (_OK.replace("m.onnx", "."), "line 4, .*model"),
    "model-is-an-address": (_OK.replace("m.onnx", "http://127.0.0.1/x"), "line 4, .*model"),
    "version-escape": ('version = "\\u001b[31m"\n' + _OK, "line 1, version: .*printable"),
    "version-long": (f'version = "{"v" * 900_000}"\n' + _OK, "line 1, version"),
    "license-long": (f'license = "{"MIT AND " * 100_000}MIT"\n' + _OK, "line 1, license"),
    "license-brackets": (f'license = "{"(" * 1000}"\n' + _OK, "line 1, license"),
    "name-of-a-device": (_OK.replace('"main"', '"nul"'), "'nul' is no name of a file on Windows"),
    "name-ends-in-a-dot": (_OK.replace('"main"', '"a."'), "'a.' is no name of a file on Windows"),
    "package-of-a-device": (_OK.replace('"p"', '"COM1.x"'), "'COM1.x' is no name of a file on Windows"),
    "option-long": (_OK + f'options = {{ k = "{"v" * 70_000}" }}\n', "line 7, .*options"),
    "option-of-many-digits": (_OK + "options = { k = 99999999999999999999 }\n", "line 7, .*options"),
    "target-escape": (_OK.replace("ort-cpu", "\\u001b[31mx"), "unknown target"),
    "target-long": (_OK.replace("ort-cpu", "x" * 900_000), r"line 6, target\[0\]\.target"),
}

#: As above; the error names the file.
PROFILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a machine profile"),
    "deep": (b"[" * 500_000, "is nested too deeply"),
    "deep-objects": (b'{"cpu":' * 100_000, "is nested too deeply"),
    "long-integer": (b'{"memory":' + b"9" * 500_000 + b"}", "a number has 500000 digits"),
    "long-float": (b'{"memory":1.' + b"9" * 500_000 + b"}", "a number has 500002 digits"),
    "infinity": (b'{"memory":Infinity}', "Infinity is not JSON"),
    "float-out-of-range": (b'{"memory":1e999}', "memory: "),
    "twice": (b'{"os":"linux","os":"windows"}', "duplicate key 'os'"),
    "twice-and-escaped": (b'{"os":"linux","\\u006fs":"windows"}', "duplicate key 'os'"),
    "many-keys": (json.dumps({f"k{i}": 0 for i in range(50_000)}).encode(), "an object has 50000 keys"),
    "many-features": (json.dumps({"cpu": {"features": ["x"] * 100_000}}).encode(), r"cpu\.features: "),
    "many-devices": (json.dumps({"npus": [{"vendor": "x"}] * 10_000}).encode(), "npus: "),
    "long-text": (json.dumps({"onnxruntime": "9" * 900_000}).encode(), "onnxruntime: "),
    "long-key": (json.dumps({"eps": {"x" * 900_000: {"version": "1"}}}).encode(), "eps: .* as a key"),
    "control-in-a-key": (b'{"\\u001b[31mred":1}', r"unknown field `\\x1b\[31mred`"),
    "half-a-pair": (b'{"name":"\\ud800"}', "not a machine profile"),
    "latin-1": (b'{"name":"\xff"}', "not a machine profile"),
    "utf-16": ('{"name":"x"}'.encode("utf-16"), "is UTF-16; expected UTF-8"),
    "nul": (b"\0" * 100, "not a machine profile"),
    "large": (b" " * 2_000_000, "is too large"),
}

#: Where a manifest holds any text.
SAYINGS: tuple[str, ...] = (
    "\x1b]0;title\x07\x1b[31mred",
    "\x9b31mred\x85\x9d0;title\x9c",
    "\u202eexe.nnno\u2066\u2069\u200f",
    "a\u2028b\u2029c\x0b\x0c\r\x08\x7f",
    ":boom: [red]markup[/red] <script>alert(1)</script>",
    "\U000e0041\ufeff\u00ad\u200b",
)

#: Environment variables, and what the error of ``aotpack run`` on a package says.
ENVIRONMENTS: dict[str, tuple[str, str, str]] = {
    "limit-long": ("AOTPACK_CACHE_LIMIT", "9" * 100_000, "is not a size"),
    "limit-escape": ("AOTPACK_CACHE_LIMIT", "\x1b[31m1", "is not a size"),
    "limit-nan": ("AOTPACK_CACHE_LIMIT", "nan", "is not a size"),
    "limit-other-digits": ("AOTPACK_CACHE_LIMIT", "٣G", "is not a size"),
    "limit-no-utf-8": ("AOTPACK_CACHE_LIMIT", "\udcff", "is not a size"),
    "variant-escape": ("AOTPACK_VARIANT", "\x1b[31mx\u202e", "unknown variant"),
    "variant-long": ("AOTPACK_VARIANT", "x" * 100_000, "unknown variant"),
    "variant-no-utf-8": ("AOTPACK_VARIANT", "\udcff", "unknown variant"),
}
