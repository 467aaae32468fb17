"""Values that cross a file: what others wrote is checked, and told with its place."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
import pytest

from aotpack.common.field_errors import explain
from aotpack.common.values import parse_value
from aotpack.machine.profile import Machine
from aotpack.manifest.records import RecordFile
from aotpack.manifest.values import File, Manifest, Numerics, Segment, Variant
from tests.made_packages import variant

RECORDS = {
    "package": "m",
    "digest": "0" * 64,
    "entries": [
        {
            "component": "main",
            "variant": "v",
            "target": "ort-cpu",
            "files": "0" * 64,
            "record": {"machine": "m", "os": "linux", "arch": "x86_64"},
        }
    ],
}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_hold_are_not_written_as_null(number: float) -> None:
    numerics = Numerics(ran_on="host", error=number)
    with pytest.raises(msgspec.ValidationError, match=r"finite number, got -?(nan|inf)"):
        numerics.validated()
    with pytest.raises(msgspec.ValidationError, match="finite"):
        Numerics.from_builtins({"ran_on": "host", "error": number})


@pytest.mark.parametrize("text", ["half \ud800", "\udc80"])
def test_halves_of_surrogate_pairs_are_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="surrogate"):
        Machine.from_builtins({"name": text})
    with pytest.raises(msgspec.ValidationError, match="surrogate"):
        variant("ort-cpu").replace(built_with={text: "1"}).validated()


def test_what_the_constructor_trusts_the_written_manifest_does_not() -> None:
    wrong = Segment(offset=-1, stored=1, size=1, codec="raw", sha256="0" * 64, xxh3="0" * 32)
    with pytest.raises(msgspec.ValidationError):
        Manifest(name="m", components=(), segments=(wrong,)).canonical_json()


def test_an_unknown_key_deep_in_records_is_refused() -> None:
    document: dict[str, Any] = json.loads(json.dumps(RECORDS))
    assert parse_value(RecordFile, json.dumps(document).encode(), limit=10_000).package == "m"
    document["entries"][0]["record"]["more"] = 1
    with pytest.raises(ValueError, match=re.escape("entries[0].record.more: unknown key")):
        parse_value(RecordFile, json.dumps(document).encode(), limit=10_000)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (Machine, b'{"cpu": 3}', "cpu: Expected `object"),
        (Machine, b'{"npus": [{"vendor": 3}]}', "npus[0].vendor: Expected `str`, got `int`"),
        (Machine, b"{", "invalid JSON: "),
        (Machine, b'{"name": "\xff"}', "invalid JSON: "),
        (Variant, b'{"device": "tpu"}', "device: Expected 'cpu' or 'gpu' or 'npu', got 'tpu'"),
        (File, b'{"segments": [1, -1]}', "segments[1]: Expected `int` >= 0"),
    ],
)
def test_an_error_names_the_place_and_what_is_expected(kind: Any, text: bytes, said: str) -> None:
    with pytest.raises(msgspec.DecodeError) as raised:
        kind.from_json(text)
    assert explain(raised.value, kind).startswith(said)


def test_what_is_repeated_of_the_input_is_bounded() -> None:
    with pytest.raises(msgspec.DecodeError) as raised:
        Machine.from_json(json.dumps({"x" * 100_000: 1}))
    assert len(explain(raised.value)) < 500
