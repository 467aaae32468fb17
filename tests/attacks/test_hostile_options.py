from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

import aotpack
from aotpack import errors
from aotpack.cache.variants import Cache
from aotpack.container.reader import PackageReader
from aotpack.machine.profile import Machine
from aotpack.manifest.values import SessionSettings, Variant
from aotpack.runtime.edit import merge, prune
from aotpack.selection.settings import Integer, Integers, JsonSections, OneOf, Setting, settings_issue
from aotpack.selection.verdict import Code, Grade, judge
from aotpack.toolchains import toolchains
from aotpack.toolchains.openvino.options import PROPERTIES
from tests.attacks.forge import honest as forged_package
from tests.attacks.forge import sha256, xxh3
from tests.attacks.hostile_options import CONFIG, EP_NAMES, OPTIONS
from tests.command_line import aotpack as command

CASES = [
    *((name, {"provider_options": dict([item])}) for name, items in OPTIONS.items() for item in items),
    *(
        (name, {"config": {f"ep.{EP_NAMES[name]}.{key}": value}})
        for name, items in OPTIONS.items()
        for key, value in items
    ),
    *((name, {"config": dict([item])}) for name in OPTIONS for item in CONFIG.items()),
]


def _variant(toolchain: str, session: dict[str, dict[str, str]]) -> Variant:
    known = toolchains()[toolchain]
    return Variant(
        id="v",
        target="some",
        toolchain=toolchain,
        ep=known.ep,
        device="cpu",
        session=SessionSettings.from_builtins(session),
    )


def test_every_toolchain_is_in_the_corpus() -> None:
    assert set(OPTIONS) == set(EP_NAMES)
    assert set(OPTIONS) <= set(toolchains())
    assert set(toolchains()) - set(OPTIONS) <= {"troublesome"}, "the tests' own"


def test_nothing_of_the_corpus_is_allowed_on_any_machine() -> None:
    for name, session in CASES:
        for here, emulate in itertools.product((False, True), repeat=2):
            verdict = judge(
                _variant(name, session), Machine(), toolchains()[name], here=here, emulate=emulate
            )
            said = (name, session, verdict)
            assert (verdict.grade, verdict.code) == (Grade.UNSUPPORTED, Code.OPTION_NOT_ALLOWED), said
            assert len(verdict.reason) < 800, said


def test_the_lists_have_a_reason_each_and_no_free_text() -> None:
    """A path, a library with a symbol, an address, a pointer: no form of any list takes one."""
    hostile = (
        "/tmp/x",
        "x.so",
        "a:b",
        "..",
        "C:\\x",
        "0x7fff00000000",
        "http://x",
        "x\n",
        "1 ",
        "",
        "9" * 21,
    )

    def forms(settings: Any) -> Any:
        for setting in settings.values():
            assert isinstance(setting, Setting)
            assert setting.reason.endswith("."), setting
            yield setting.form
            if isinstance(setting.form, JsonSections):
                yield from forms(setting.form.keys)

    for toolchain in toolchains().values():
        for form in (*forms(toolchain.package_options), *forms(toolchain.package_config)):
            assert form.expected
            assert not [text for text in hostile if form.accepts(text)], form


def test_what_toolchains_write_is_in_their_lists() -> None:
    from aotpack.targets.catalogue import catalogue

    for target in catalogue().values():
        toolchain = toolchains()[target.toolchain]
        assert settings_issue(toolchain.session_settings(target), toolchain) is None, target.name


def test_a_toolchain_without_lists_allows_nothing_and_one_whose_lists_raise_neither() -> None:
    class Raising:
        @property
        def package_options(self) -> None:
            raise RuntimeError("broken")

    session = SessionSettings(provider_options={"a": "b"})
    assert settings_issue(SessionSettings(), object()) is None
    assert "no package may set" in (settings_issue(session, object()) or "")
    assert "RuntimeError: broken" in (settings_issue(session, Raising()) or "")


def test_an_unknown_toolchain_stays_unknown() -> None:
    variant = _variant("ort", {"config": {"a": "b"}}).replace(toolchain="nobody")
    assert judge(variant, Machine(), None, here=True).grade is Grade.UNKNOWN


@pytest.mark.parametrize("name", OPTIONS)
def test_keys_and_values_at_random(name: str) -> None:
    """Whatever is let through has a listed key, letter for letter, and a value that could name nothing."""
    toolchain, chance, let_through = toolchains()[name], random.Random(name), 0
    keys = [
        *toolchain.package_options,
        *toolchain.package_config,
        *CONFIG,
        *(key for key, _ in OPTIONS[name]),
    ]
    values = [value for _, value in OPTIONS[name]] + [
        *CONFIG.values(),
        "0",
        "1",
        "8",
        "60,73",
        "burst",
        "HIGH",
    ]
    values += [
        json.dumps({"CPU": {key: value}}) for key in PROPERTIES for value in ("f32", 1, True, "/x", "")
    ]
    for _ in range(3000):
        pairs = {}
        for _ in range(chance.randrange(1, 3)):
            key, value = chance.choice(keys), chance.choice(values)
            if chance.random() < 0.2:
                key = _changed(chance, key)
            if chance.random() < 0.2:
                value = _changed(chance, value)
            pairs[key] = value
        for field, listed in (
            ("provider_options", toolchain.package_options),
            ("config", toolchain.package_config),
        ):
            if settings_issue(SessionSettings.from_builtins({field: pairs}), toolchain) is not None:
                continue
            let_through += 1
            assert pairs.keys() <= listed.keys()
            for value in pairs.values():
                if value.lstrip().startswith("{"):
                    value = json.dumps(json.loads(value))
                assert not set(value) & set("/\\.\0\n~$;%"), value
                if not value.startswith("{"):
                    assert re.fullmatch(r"[A-Za-z0-9_,]+", value), value
    assert let_through or not (toolchain.package_options or toolchain.package_config)


def _changed(chance: random.Random, text: str) -> str:
    place = chance.randrange(len(text) + 1)
    extra = chance.choice(("", "/", ".", "\0", " ", "x", "\n", ",", ":", "\u0661", "../", "{", '"'))
    return text[:place] + extra + text[place + chance.randrange(2) :]


def test_forms() -> None:
    assert [OneOf(("a", "b")).accepts(x) for x in ("a", "A", "a ", "")] == [True, False, False, False]
    assert [Integer(1, 64).accepts(x) for x in ("1", "64", "0", "65", "064", "+1", "-1", "1.0", "٣")] == [
        True,
        True,
        *[False] * 7,
    ]
    several = Integers(Integer(0, 99), 3)
    assert [several.accepts(x) for x in ("1", "1,2,3", "1,2,3,4", "1,,2", "1,", ",")] == [
        True,
        True,
        *[False] * 4,
    ]
    keys = {"N": Setting(Integer(0, 9), "A number."), "B": Setting(OneOf(("true", "false")), "A flag.")}
    inner = JsonSections(("CPU",), keys)
    good = ("{}", '{"CPU":{}}', '{"CPU":{"N":"1"}}', ' {"CPU" : {"N": 1, "B": true}}')
    bad = (
        "",
        "1",
        '"CPU"',
        '{"CPU":{"N":true}}',
        '{"CPU":{"B":1}}',
        '{"CPU":{"N":null}}',
        '{"GPU":{}}',
        "{}{}",
    )
    assert all(map(inner.accepts, good))
    assert not any(map(inner.accepts, bad))


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A package with one variant that would write a file, and a sound one."""
    return write_package(tmp_path / "evil.aotpack", tmp_path)


def write_package(path: Path, folder: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="\ntouch owned\n#")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content = model.SerializeToString()
    forged = forged_package()
    forged.store(2, content, content)
    (onnx_file,) = forged.files[:1]
    onnx_file |= {"size": len(content), "sha256": sha256(content)}
    forged.segments[2]["xxh3"] = xxh3(content)
    forged.files[1]["path"] = "other.bin"
    sound = {**forged.variant, "id": "sound"}
    forged.variant["session"] = {
        "config": {"session.collect_node_memory_stats_to_file": str(folder / "victim")}
    }
    forged.manifest["components"][0]["variants"].append(sound)
    # The old content of the segment stays behind as bytes that belong to nothing.
    return forged.write(path)


def test_it_is_refused_everywhere_before_a_byte_is_put_together(evil: Path, tmp_path: Path) -> None:
    selection = aotpack.select(evil)
    assert [(each.id, each.verdict.code.value) for each in selection.candidates] == [
        ("sound", "fits"),
        ("ort-cpu", "option-not-allowed"),
    ]
    cache = Cache(tmp_path / "cache")
    with PackageReader.open(evil) as reader:
        package = aotpack.Package(reader, cache=cache)
        by_name = aotpack.Policy(variant="ort-cpu")
        with pytest.raises(errors.NothingToLoad, match="no package may set"):
            package.load(policy=by_name)
        assert cache.entries() == []
        # One that was made by hand is no way around it.
        forced = selection.candidates[1]._replace(accepted=True)
        made = type(selection)("main", (forced,))
        with pytest.raises(errors.NothingToLoad, match="no package may set"):
            package.load(made)
        assert cache.entries() == []
        assert package.load().get_inputs()[0].name == "x"
        assert [entry.variant for entry in cache.entries()] == ["sound"]
        with pytest.raises(
            errors.NotAllowed, match=r"1 of its variants .*main/ort-cpu \[option-not-allowed\]"
        ):
            package.verify()
        with pytest.raises(errors.NotAllowed, match="option-not-allowed"):
            merge([reader, reader], tmp_path / "merged.aotpack")
        with pytest.raises(errors.NotAllowed, match="--drop"):
            prune(reader, tmp_path / "pruned.aotpack", keep=["ort-cpu"])
        prune(reader, tmp_path / "pruned.aotpack", keep=["sound"])
        assert len(package.extract("ort-cpu", tmp_path / "looked-at")) == 2, "bytes may be looked at"
    assert not (tmp_path / "merged.aotpack").exists()
    assert not (tmp_path / "victim").exists()


def test_inspect_shows_it(evil: Path) -> None:
    shown = command("inspect", evil)
    assert "UNSUPPORTED everywhere [option-not-allowed]" in shown.out
    document = command("inspect", evil, "--json").document("inspect")
    assert [(each["variant"], each["code"]) for each in document["refused"]] == [
        ("ort-cpu", "option-not-allowed")
    ]
    assert command("verify", evil).status == 1


def test_no_target_can_be_given_them() -> None:
    for name, items in OPTIONS.items():
        for option, value in items:
            issue = toolchains()[name].option_issue(option, value)
            assert issue, (name, option, value)
            assert "\n" not in issue or "\n" in repr(value), issue
