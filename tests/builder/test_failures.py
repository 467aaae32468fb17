"""Whatever a toolchain does to its process is one failed row; the package holds the others."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.builder.troublesome import MISBEHAVIOURS
from tests.command_line import ROOT, Done, aotpack

#: What each row's reason must say.
REASONS = {
    "fifo-for-a-result": r"no result that can be read: result.json: is no regular file",
    "fifo-for-a-log": "the worker ended with status 3 and no result",
    "stop-the-server": "it did not end within 12 s",
    "kill-the-server": "the process that starts the workers has died",
    "sparse-file": r"v: is too large; found 1073741824 bytes; expected at most \d+ for this model",
    "daemon-eats-memory": r"it took \d+ MiB of memory; the limit is 572 MiB",
    "leave-a-daemon": "RuntimeError: the daemon stays",
    "symbolic-link": "w: is a link, or lies behind one",
    "linked-folder": "inner/secret: is a link, or lies behind one",
    "hard-link": "w: has another name too; found 2 links",
    "file-outside": r"^\$TROUBLESOME_SECRET: lies outside the folder that was given",
    "name-a-file-of-others": "^no package may hold it: model.onnx",
    "many-files": "files: Expected `array` of length <= 4096",
    "many-operators": "^it gave what no package may hold: .*left_on_cpu: Expected `object` of length <= 1024",
    "case-twins": "'w' is the same name as that of files",
    "nested-paths": "'model.onnx/w' lies inside another file",
    "long-string": "Expected `str` of length <= 65536",
    "surrogate-string": "ep_string: Expected Unicode text, got half of a surrogate pair",
    "wrong-types": "TypeError",
    "change-the-model": "the compiler changed or removed the model that it was given",
    "remove-the-model": "the compiler changed or removed the model that it was given",
    "remove-its-folder": "the compiler changed or removed the model that it was given",
    "print-without-end": "it did not end within 12 s",
    "negative-difference": "the worker ended with status 0 and a result that cannot be read",
    "secrets": r"RuntimeError: no licence for \$TROUBLESOME_TOKEN$",
    "abort": "the worker was killed by SIGABRT",
    "segfault": "the worker was killed by SIGSEGV",
    "hang": "it did not end within 12 s",
    "hang-with-child": "it did not end within 12 s",
    "eat-memory": r"it took \d+ MiB of memory; the limit is 572 MiB",
    "exit": "the worker ended with status 0 and no result",
    "raise": "RuntimeError: the first line and the second",
    "shout": "RuntimeError: hoarse",
    "write-nothing": "model.onnx: was not written",
    "write-garbage": "model.onnx: is not an ONNX model",
    "write-outside": "leaves its folder",
    "wrong-numbers": (
        r"its numbers are off: output 'features' has an error of .* of its own scale; "
        r"the tolerance is 0.001; worst at \[0, 1\] of sample 0: .* instead of .*; ran on host"
    ),
    "abort-at-load": r"it compiled, but does not run \(host\): the worker was killed by SIGABRT",
    "raise-when-asked": "RuntimeError: no answer",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trouble") / "trouble.aotpack"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the user's."""
    path = tmp_path_factory.mktemp("home") / "secret"
    path.write_text("of the user")
    path.chmod(0o640)
    return path


@pytest.fixture(scope="module")
def build(package: Path, small_model: Path, troublesome: Path, secret: Path) -> Done:
    """Each misbehaviour once, between two targets that work."""
    targets = ("ort-cpu", *(f"trouble-{how}" for how in MISBEHAVIOURS), "trouble-none")
    options = ("--json", "--jobs", 6, "--time-limit", 12, "--memory-limit", "600M")
    chosen = (f"--target={name}" for name in targets)
    env = {
        "TROUBLESOME_SECRET": str(secret),
        "TROUBLESOME_TOKEN": "hf_0123456789",
        "HOME": str(secret.parent),
    }
    before = small_model.read_bytes()
    done = aotpack("build", small_model, "-o", package, *chosen, *options, path=(troublesome,), env=env)
    assert small_model.read_bytes() == before, "compilers get copies"
    return done


@pytest.fixture(scope="module")
def rows(build: Done) -> dict[str, dict[str, Any]]:
    return {row["target"]: row for row in build.document("build-report")["rows"]}


def test_the_exit_status_and_one_line_say_that_targets_failed(build: Done) -> None:
    assert build.status == 1
    assert build.error.startswith(f"{len(MISBEHAVIOURS)} of {len(MISBEHAVIOURS) + 3} targets failed")
    assert "--keep-going" in build.error


@pytest.mark.parametrize("how", MISBEHAVIOURS)
def test_each_is_one_failed_row_with_its_reason(rows: dict[str, dict[str, Any]], how: str) -> None:
    row = rows[f"trouble-{how}"]
    assert row["state"] == "failed"
    assert row["id"] is None
    assert re.search(REASONS[how], row["reason"]), row["reason"]
    assert "\n" not in row["reason"]


def test_the_others_are_built_and_packed(
    rows: dict[str, dict[str, Any]], package: Path, troublesome: Path
) -> None:
    built = [name for name, row in rows.items() if row["state"] == "built"]
    assert built == ["ort-cpu", "trouble-none", "portable"]
    assert aotpack("verify", package).status == 0
    selection = aotpack("select", package, "--json", path=(troublesome,)).document("selection")
    assert [each["target"] for each in selection["candidates"]] == built
    # Where the third party's toolchain is not installed nobody can judge its variant.
    selection = aotpack("select", package, "--json").document("selection")
    assert {each["code"] for each in selection["candidates"]} == {"fits", "portable", "toolchain-unknown"}


def test_what_a_worker_printed_is_in_its_row_and_nowhere_else(
    rows: dict[str, dict[str, Any]], build: Done
) -> None:
    assert "troublesome: compiling for trouble-abort" in rows["trouble-abort"]["log"]
    assert "199999 shouted" in rows["trouble-shout"]["log"]
    assert len(rows["trouble-shout"]["log"]) < 10_000
    assert "troublesome: compiling" not in build.err


def test_children_of_a_worker_do_not_outlive_it(rows: dict[str, dict[str, Any]]) -> None:
    match = re.search(r"child (\d+)", rows["trouble-hang-with-child"]["log"])
    assert match is not None
    assert not psutil.pid_exists(int(match[1])) or psutil.Process(int(match[1])).status() == "zombie"


def test_a_daemon_does_not_outlive_its_job(rows: dict[str, dict[str, Any]]) -> None:
    match = re.search(r"daemon (\d+)", rows["trouble-leave-a-daemon"]["log"])
    assert match is not None
    assert not psutil.pid_exists(int(match[1]))


def test_no_file_of_the_user_is_touched_or_packed(
    rows: dict[str, dict[str, Any]], package: Path, secret: Path
) -> None:
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("of the user", 0o640)
    assert b"of the user" not in package.read_bytes()


def test_a_log_says_neither_credentials_nor_where_the_user_lives(
    rows: dict[str, dict[str, Any]], secret: Path
) -> None:
    row = rows["trouble-secrets"]
    assert "$TROUBLESOME_TOKEN ~/models" in row["log"]
    for other in rows.values():
        assert "hf_0123456789" not in json.dumps(other)
        assert str(secret.parent) not in (other["log"] or "")


def test_the_highest_memory_of_a_worker_is_reported(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["trouble-eat-memory"]["peak_memory"] > 600_000_000


def test_nothing_but_the_package_is_left(package: Path, build: Done) -> None:
    assert [path.name for path in package.parent.iterdir()] == [package.name]


def test_keep_going_makes_it_a_success(small_model: Path, troublesome: Path, tmp_path: Path) -> None:
    package = tmp_path / "kept.aotpack"
    targets = ("-t", "trouble-exit", "--keep-going")
    done = aotpack("build", small_model, "-o", package, *targets, path=(troublesome,))
    assert done.status == 0, done.err
    assert "trouble-exit: the worker ended with status 0 and no result" in done.out
    assert "FAILED main/trouble-exit" in done.err
    assert aotpack("verify", package).status == 0


def test_without_any_variant_there_is_no_package_even_with_keep_going(
    small_model: Path, troublesome: Path, tmp_path: Path
) -> None:
    package = tmp_path / "none.aotpack"
    package.write_bytes(b"what was there before")
    targets = ("-t", "trouble-exit", "--no-portable", "--keep-going", "--json", "--force")
    done = aotpack("build", small_model, "-o", package, *targets, path=(troublesome,))
    assert done.status == 1
    assert "no target could be built, so there is no package" in done.error
    assert done.document("build-report")["package"] is None
    assert package.read_bytes() == b"what was there before"


def test_processes_import_nothing_from_the_folder_of_the_user(small_model: Path, tmp_path: Path) -> None:
    """A cloned model repository may hold modules of its own."""
    for name in ("numpy", "onnx", "onnxruntime", "psutil", "json", "aotpack"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    output = tmp_path / "x.aotpack"
    targets = ("-t", "ort-cpu", "-t", "openvino-cpu-avx2")
    for arguments in (("build", small_model, "-o", output, *targets), ("select", output), ("run", output)):
        # As the script `aotpack` starts.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "aotpack", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "AOTPACK_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "ran").exists(), arguments
