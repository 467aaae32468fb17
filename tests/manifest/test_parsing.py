from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotpack.common.paths import path_issue
from aotpack.errors import LimitExceeded, ManifestError, NewerFormat
from aotpack.manifest import parsing
from aotpack.manifest import values as m
from aotpack.manifest.parsing import parse
from tests.attacks.forge import honest
from tests.attacks.lies import LIES


def text(change: Any = None) -> bytes:
    forged = honest()
    if change is not None:
        change(forged)
    return json.dumps(forged.manifest).encode()


def canonical() -> m.Manifest:
    return parse(text())


def test_the_canonical_form_reads_back_and_stays() -> None:
    manifest = canonical()
    written = manifest.canonical_json()
    assert parse(written) == manifest
    assert parse(written).canonical_json() == written
    assert written.startswith(b'{"aotpack":"1.0","name":"tiny"')
    assert b"null" not in written


def test_maps_are_sorted_in_the_canonical_form() -> None:
    def built_with(order: str) -> bytes:
        manifest = parse(text(lambda it: it.variant.update(built_with=dict.fromkeys(order, "1"))))
        return manifest.canonical_json()

    assert built_with("ba") == built_with("ab")


def test_one_that_lacks_keys_of_today_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of earlier releases do: Python's parser and a second check take longer than all the rest."""

    def second_parser(text: bytes) -> object:
        pytest.fail("parsed again")

    expected = canonical()
    manifest = json.loads(expected.to_json())
    for component in manifest["components"]:
        for variant in component["variants"]:
            del variant["flex"], variant["specificity"]
    earlier = json.dumps(manifest, separators=(",", ":")).encode()
    monkeypatch.setattr(parsing, "read_unambiguous_json", second_parser)
    assert parse(earlier) == expected


def test_white_space_and_another_order_are_read() -> None:
    loose = json.loads(text())
    shuffled = {"aotpack": loose.pop("aotpack"), **dict(reversed(loose.items()))}
    assert parse(json.dumps(shuffled, indent=2).encode()) == canonical()


def test_a_key_that_occurs_twice_is_found_in_any_writing() -> None:
    for twin in ('"name": "x", "name"', '"name" : "x","name"', '"n\\u0061me":"x", "name"'):
        with pytest.raises(ManifestError, match="duplicate key 'name'"):
            parse(text().replace(b'"name": "tiny"', f'{twin}: "tiny"'.encode(), 1))


def test_a_newer_minor_version_may_have_more_keys_but_no_duplicates() -> None:
    newer = text(lambda it: it.manifest.update(aotpack="1.9", news={"a": 1}))
    assert parse(newer).aotpack == "1.9"
    with pytest.raises(ManifestError, match="duplicate key 'a'"):
        parse(newer.replace(b'{"a": 1}', b'{"a": 1, "a": 2}'))


@pytest.mark.parametrize("version", ["0.9", "2.0", "10.0"])
def test_another_major_version_is_refused(version: str) -> None:
    with pytest.raises(NewerFormat, match=rf"found {version}; expected 1\.x"):
        parse(text(lambda it: it.manifest.update(aotpack=version)))


def test_all_contradictions_are_counted_and_the_first_is_told() -> None:
    def lie(it: Any) -> None:
        it.files[0]["size"] += 1
        it.files[1]["path"] = "../x"

    with pytest.raises(
        ManifestError, match=r"components\[0\]\.variants\[0\]\.files\[1\]\.path: .*\(and 1 more\)"
    ):
        parse(text(lie))


def test_too_many_values_are_refused_before_they_are_built() -> None:
    with pytest.raises(LimitExceeded, match="too many values"):
        parse(text().replace(b'"inputs": []', b'"inputs": [' + b"0," * m.MAX_VALUES + b"0]"))


def test_reading_leaves_the_garbage_collector_as_it_was() -> None:
    assert gc.isenabled()
    canonical()
    assert gc.isenabled()
    with pytest.raises(ManifestError):
        parse(b'{"aotpack":"1.0"}')
    assert gc.isenabled()
    gc.disable()
    try:
        canonical()
        assert not gc.isenabled()
    finally:
        gc.enable()


@given(
    path=st.text(st.characters(codec="utf-8"), max_size=20)
    | st.sampled_from(["a/b", "a", "../a", "/a", "C:/a"])
)
def test_a_path_without_issue_stays_inside_its_folder(path: str) -> None:
    if path_issue(path) is None:
        parts = path.split("/")
        assert ".." not in parts
        assert "" not in parts
        assert "\\" not in path
        assert ":" not in path


def test_every_lie_about_the_manifest_alone_is_refused_here_too() -> None:
    refused = 0
    for lie in LIES:
        forged = honest()
        lie.tell(forged)
        if lie.error is ManifestError and forged.text is None:
            with pytest.raises(ManifestError):
                parse(json.dumps(forged.manifest).encode())
            refused += 1
    assert refused > 40
