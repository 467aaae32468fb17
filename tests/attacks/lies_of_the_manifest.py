"""The manifest's JSON lies."""

from __future__ import annotations

import json

from aotpack import errors
from aotpack.container.format import MAX_MANIFEST_BYTES
from aotpack.manifest.values import MAX_FILES, MAX_SEGMENTS, MAX_VARIANTS
from tests.attacks.forge import Forgery
from tests.attacks.lie import refused


@refused(errors.ManifestError, "does not start with its format version")
def manifest_is_empty(it: Forgery) -> None:
    it.text = b""


@refused(errors.ManifestError, "does not start with its format version")
def manifest_is_not_json(it: Forgery) -> None:
    it.text = b"aotpack: 1.0"


@refused(errors.ManifestError, "aotpack: manifest: invalid JSON")
def manifest_is_cut_short(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()[:-1]


@refused(errors.ManifestError, "invalid JSON")
def manifest_has_more_behind_it(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode() + b"{}"


@refused(errors.ManifestError, "invalid JSON")
def manifest_is_not_utf8(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"tiny"', b'"tin\xff"')


@refused(errors.ManifestError, "invalid JSON")
def lone_surrogate(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"tiny"', rb'"tin\ud800"')


@refused(errors.ManifestError, "duplicate key 'name'")
def duplicate_key(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"name": "tiny"', b'"name": "evil", "name": "tiny"')


@refused(errors.ManifestError, "duplicate key 'path'")
def duplicate_key_written_another_way(it: Forgery) -> None:
    text = json.dumps(it.manifest).encode()
    it.text = text.replace(b'"path": "model.bin"', rb'"p\u0061th": "../evil", "path": "model.bin"')


@refused(errors.ManifestError, "duplicate key 'o'")
def duplicate_key_in_a_map(it: Forgery) -> None:
    it.variant["built_with"] = {"p": "1"}
    it.text = json.dumps(it.manifest).encode().replace(b'{"p": "1"}', b'{"o": "1", "o": "2"}')


@refused(errors.ManifestError, r"variants\[0\]\.run_after_install: unknown key")
def unknown_key(it: Forgery) -> None:
    it.variant["run_after_install"] = "rm -rf /"


@refused(errors.ManifestError, "invalid JSON: invalid character")
def not_a_number(it: Forgery) -> None:
    it.variant["numerics"] = {"max_abs": float("nan"), "error": 0.0, "tolerance": 0.0, "ran_on": "host"}


@refused(errors.ManifestError, "invalid JSON: invalid character")
def infinity(it: Forgery) -> None:
    it.variant["numerics"] = {"max_abs": float("inf"), "error": 0.0, "tolerance": 0.0, "ran_on": "host"}


@refused(errors.ManifestError, "Number out of range")
def number_beyond_all_floats(it: Forgery) -> None:
    it.variant["numerics"] = {"max_abs": 12345.0, "error": 0.0, "tolerance": 0.0, "ran_on": "host"}
    it.text = json.dumps(it.manifest).encode().replace(b"12345.0", b"1e400")


@refused(errors.ManifestError, "Expected `int`, got `(bool|str|float)`")
def true_for_a_number(it: Forgery) -> None:
    it.files[0]["size"] = True


@refused(errors.ManifestError, "Expected `int`, got `(bool|str|float)`")
def text_for_a_number(it: Forgery) -> None:
    it.files[0]["size"] = "28"


@refused(errors.ManifestError, "Expected `int`, got `(bool|str|float)`")
def fraction_for_a_number(it: Forgery) -> None:
    it.files[0]["size"] = 28.5


@refused(errors.LimitExceeded, "nested too deeply")
def deep_nesting(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@refused(errors.LimitExceeded, "nested too deeply")
def deep_nesting_in_a_newer_minor_version(it: Forgery) -> None:
    it.version = (1, 9)
    it.manifest["aotpack"] = "1.9"
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@refused(errors.NewerFormat, r"found 2\.0")
def newer_manifest_in_an_old_preamble(it: Forgery) -> None:
    it.manifest["aotpack"] = "2.0"


@refused(errors.LimitExceeded, "too many values")
def a_file_of_many_millions_of_segments(it: Forgery) -> None:
    it.files[1]["segments"] = [0] * 7_000_000


@refused(errors.LimitExceeded, "at most 4096|too many values")
def a_million_variants(it: Forgery) -> None:
    assert MAX_VARIANTS == 4096
    marker = '"variants": ['
    text = json.dumps(it.manifest)
    variant = json.dumps({**it.variant, "files": []}, separators=(",", ":"))
    many = ",".join([variant] * (MAX_MANIFEST_BYTES // (len(variant) + 1) - 100))
    it.text = text.replace(marker, marker + many + ",").encode()


@refused(errors.LimitExceeded, "manifest is too long")
def a_million_variants_and_no_limit_to_length(it: Forgery) -> None:
    it.size = 1_000_000 * 120


@refused(errors.LimitExceeded, "too many values; found [0-9]+; expected <= 1048576")
def a_million_empty_segments(it: Forgery) -> None:
    text = json.dumps({**it.manifest, "segments": []})
    it.text = text.replace('"segments": []}', '"segments": [' + "{}," * 5_000_000 + "{}]}").encode()


@refused(errors.LimitExceeded, "of length <= 65536$")
def a_file_of_millions_of_segments(it: Forgery) -> None:
    assert MAX_SEGMENTS == 65536
    it.files[1]["segments"] = [0] * 900_000


@refused(errors.LimitExceeded, "too many values")
def a_million_empty_arrays(it: Forgery) -> None:
    it.variant["news"] = [[]] * 5_000_000


@refused(errors.ManifestError, "an object has 1000000 keys; expected at most 1024")
def a_million_unknown_keys(it: Forgery) -> None:
    keys = b"".join(b', "%d": 0' % number for number in range(1_000_000 - 4))
    it.text = json.dumps(it.manifest).encode()[:-1] + keys + b"}"
    it.body = b""  # its place is taken


@refused(errors.ManifestError, r"components\[0\]\.inputs\[0\]: Object missing required field `name`")
def half_a_million_empty_inputs(it: Forgery) -> None:
    it.text = (
        json.dumps(it.manifest).encode().replace(b'"inputs": []', b'"inputs": [' + b"{}," * 500_000 + b"{}]")
    )


@refused(errors.ManifestError, r"requires\.isa\[0\]: Expected `str`, got `int`")
def a_million_numbers_for_texts(it: Forgery) -> None:
    it.variant["compatibility"] = {"requires": {"isa": [1] * 1_000_000}}


@refused(errors.ManifestError, r"flex\[0\]: Object missing required field `node`")
def half_a_million_empty_lowerings(it: Forgery) -> None:
    it.variant["flex"] = [{}] * 500_000


@refused(errors.ManifestError, r"built_with\[\.\.\.\]: Expected `str`, got `int`")
def a_million_numbers_in_a_map(it: Forgery) -> None:
    it.variant["built_with"] = dict.fromkeys(map(str, range(1_000_000)), 0)
    it.body = b""  # its place is taken


@refused(errors.ManifestError, "an object has 1000001 keys; expected at most 1024")
def a_million_keys(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "news": {' + b'"k":0,' * 1_000_000 + b'"k":0}}'


@refused(errors.LimitExceeded, "of length <= 4096$")
def a_variant_of_too_many_files(it: Forgery) -> None:
    assert MAX_FILES == 4096
    it.variant["files"] = [it.files[0] | {"path": f"f{i}"} for i in range(MAX_FILES + 1)]


@refused(errors.LimitExceeded, "of length <= 65536$")
def text_without_end(it: Forgery) -> None:
    it.variant["compatibility"] = {"ep_string": "x" * 10_000_000}


@refused(errors.ManifestError, "of length >= 1$")
def no_components(it: Forgery) -> None:
    it.manifest["components"] = []


@refused(errors.ManifestError, "at least an ONNX file")
def a_variant_without_files(it: Forgery) -> None:
    it.manifest["segments"] = []
    it.variant["files"] = []


@refused(errors.ManifestError, "does not start with its format version")
def manifest_behind_a_byte_order_mark(it: Forgery) -> None:
    it.text = b"\xef\xbb\xbf" + json.dumps(it.manifest).encode()


@refused(errors.ManifestError, "does not start with its format version")
def manifest_in_utf16(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode("utf-16")


@refused(errors.ManifestError, "manifest: invalid JSON")
def manifest_with_zeros_behind_it(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode() + b"\0\0"


@refused(errors.ManifestError, "invalid JSON")
def surrogates_in_the_wrong_order(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"model.bin"', rb'"\ude00\ud83d.bin"')


@refused(errors.ManifestError, "invalid JSON")
def slash_in_overlong_utf8(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"model.bin"', b'"..\xc0\xafbin"')


@refused(errors.ManifestError, "Expected `int`, got `(bool|str|float)`")
def whole_number_written_as_a_float(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"size": 28,', b'"size": 28.0,')


@refused(errors.ManifestError, "Expected `int`, got `(bool|str|float)`")
def whole_number_with_an_exponent(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"size": 28,', b'"size": 2.8e1,')


@refused(errors.ManifestError, "invalid JSON")
def whole_number_with_a_zero_before_it(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode().replace(b'"size": 28,', b'"size": 028,')


@refused(errors.ManifestError, "a number has 10000000 digits")
def number_of_millions_of_digits_in_a_newer_minor_version(it: Forgery) -> None:
    it.version = (1, 9)
    it.manifest["aotpack"] = "1.9"
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "x": ' + b"9" * 10_000_000 + b"}"


@refused(errors.ManifestError, "duplicate key 'aotpack'")
def two_versions_in_the_manifest(it: Forgery) -> None:
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "aotpack": "1.0"}'


@refused(errors.ManifestError, "duplicate key 'x'")
def duplicate_key_in_a_newer_minor_version(it: Forgery) -> None:
    it.version = (1, 9)
    it.manifest["aotpack"] = "1.9"
    it.text = json.dumps(it.manifest).encode()[:-1] + b', "x": 1, "x": 2}'
