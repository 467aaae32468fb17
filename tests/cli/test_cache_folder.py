"""Which folder is the cache, as the environment says, and what happens when it cannot be one."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

import pytest

import aotpack as api
from aotpack.cache.variants import DEFAULT_LIMIT, Cache
from aotpack.errors import OutputError, UsageError
from tests.command_line import aotpack
from tests.conftest import BuiltPackage


def build(model: Path, env: Mapping[str, str]) -> None:
    """Build `model` and load the package, in its folder."""
    assert aotpack("build", model, "-o", "m.aotpack", "-t", "ort-cpu", env=env, cwd=model.parent).status == 0
    assert aotpack("run", "m.aotpack", env=env, cwd=model.parent).status == 0


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> Path:
    place = tmp_path / "here" / "m.onnx"
    place.parent.mkdir()
    place.write_bytes(small_model.read_bytes())
    return place


@pytest.mark.parametrize("text", ["cache", "./cache", "../here/cache", "a/b/cache"])
def test_a_relative_folder_is_one_of_the_working_folder(model: Path, text: str) -> None:
    build(model, {"AOTPACK_CACHE": text})
    folder = (model.parent / text).resolve()
    assert {"CACHEDIR.TAG", "variants"} <= {path.name for path in folder.iterdir()}


def test_a_program_that_changes_its_folder_keeps_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AOTPACK_CACHE", "cache")
    cache = Cache()
    monkeypatch.chdir("/")
    assert cache.root == tmp_path / "cache"


def test_a_tilde_is_the_home_folder(model: Path, tmp_path: Path) -> None:
    build(model, {"AOTPACK_CACHE": "~/cache", "HOME": str(tmp_path / "home")})
    assert (tmp_path / "home" / "cache" / "CACHEDIR.TAG").exists()
    assert not (model.parent / "~").exists()


def test_the_home_of_nobody_is_one_line(model: Path) -> None:
    env = {"AOTPACK_CACHE": "~nobody-at-all/cache"}
    done = aotpack("build", model, "-o", model.with_name("m.aotpack"), "-t", "ort-cpu", env=env)
    assert done.status == 2
    assert done.error == (
        "AOTPACK_CACHE ~nobody-at-all/cache: names a home folder that is not known (give a full path)"
    )


@pytest.mark.parametrize("text", ["", " "])
def test_a_variable_without_a_text_is_not_set(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AOTPACK_CACHE", raising=False)
    default = Cache().root
    monkeypatch.setenv("AOTPACK_CACHE", text)
    assert Cache().root == default


def without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under some number: no HOME, and no entry in passwd."""

    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "AOTPACK_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_a_user_without_a_home_loads_from_memory_and_is_told_what_to_set_for_more(
    vad: BuiltPackage, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_home(monkeypatch)
    session = api.load(vad.path, policy=api.Policy(variant="ort-cpu"))
    assert session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(OutputError, match=r"^the cache: the user has no home folder .*set AOTPACK_CACHE"):
        api.build(model, targets=["ort-cpu"], output=model.with_name("m.aotpack"))
    assert not model.with_name("m.aotpack").exists()
    monkeypatch.setenv("AOTPACK_CACHE", "/somewhere")
    assert Cache().root == Path("/somewhere")


def test_a_home_that_is_named_and_not_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_home(monkeypatch)
    monkeypatch.setenv("AOTPACK_CACHE", "~/cache")
    with pytest.raises(UsageError, match="home folder"):
        Cache()


def test_a_build_writes_nothing_to_a_folder_that_is_something_else(model: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("files", "builds", "results/work", "sent"):
        (project / name).mkdir(parents=True)
        (project / name / "thesis.txt").write_text("ten years of work")
        os.utime(project / name / "thesis.txt", (1, 1))
    before = sorted(project.rglob("*"))
    env = {"AOTPACK_CACHE": str(project)}
    done = aotpack("build", model, "-o", model.with_name("m.aotpack"), "-t", "ort-cpu", env=env)
    assert done.error == (
        f"{project}: is neither empty nor a cache of aotpack (set AOTPACK_CACHE to a new or an empty folder)"
    )
    assert sorted(project.rglob("*")) == before
    assert not model.with_name("m.aotpack").exists()


@pytest.mark.parametrize("what", ["a file", "a link", "a pipe"])
def test_what_is_not_a_folder_is_one_line(model: Path, tmp_path: Path, what: str) -> None:
    place = tmp_path / "cache"
    if what == "a file":
        place.touch()
    elif what == "a link":
        place.symlink_to("nowhere")
    else:
        os.mkfifo(place)
    done = aotpack(
        "build",
        model,
        "-o",
        model.with_name("m.aotpack"),
        "-t",
        "ort-cpu",
        env={"AOTPACK_CACHE": str(place)},
    )
    assert done.error == (f"{place}: is a file, or a link that leads nowhere (set AOTPACK_CACHE to a folder)")


def test_a_link_to_a_folder_is_a_cache_like_any_other(model: Path, tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "cache").symlink_to("large-disk")
    build(model, {"AOTPACK_CACHE": str(tmp_path / "cache")})
    assert (tmp_path / "large-disk" / "CACHEDIR.TAG").exists()


def test_a_folder_that_onnxruntime_cannot_name_is_refused_at_once(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(UsageError, match=r"is not UTF-8.*set AOTPACK_CACHE"):
        Cache(folder)


@pytest.mark.parametrize("text", ["", " "])
def test_a_limit_without_a_text_is_not_set(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOTPACK_CACHE_LIMIT", text)
    assert Cache().limit == DEFAULT_LIMIT
