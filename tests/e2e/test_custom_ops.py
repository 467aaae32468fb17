"""Models with operators that ONNX Runtime does not have, from the build to the session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import aotpack as api
from aotpack.builder.build import build_spec
from aotpack.builder.check import check
from aotpack.builder.models.custom_domains import custom_domains
from aotpack.builder.spec_file import read_build_file
from aotpack.builder.tune import tune
from aotpack.errors import BuildFailed, ModelError, NothingToLoad, UsageError
from aotpack.manifest.values import Variant
from aotpack.runtime.events import Event, EventCode
from aotpack.selection.policy import Policy
from aotpack.selection.verdict import Code
from tests.command_line import aotpack
from tests.custom_op_library import DOMAIN, library, model
from tests.hardware import compilable
from tests.repack import repack

X = np.array([[-3, -0.25, 0, 2]], np.float32)


def expected(step: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.maximum(2 * X + np.float32(step), 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``m.onnx``, ``libstep.so`` that adds 1, and ``m.aotpack`` built with both."""
    path = tmp_path_factory.mktemp("custom")
    model(path / "m.onnx")
    library(path)
    report = api.build(
        path / "m.onnx", targets=["ort-cpu"], output=path / "m.aotpack", custom_ops=[path / "libstep.so"]
    )
    assert [row.state for row in report.rows] == ["built", "built"]
    assert all(row.numerics is not None and row.numerics.error == 0 for row in report.rows)
    return path


def test_the_manifest_names_the_domain_and_the_package_holds_no_library(folder: Path) -> None:
    with api.open(folder / "m.aotpack") as package:
        variants = package.component().variants
        assert [each.compatibility.requires.custom_ops for each in variants] == [(DOMAIN,), (DOMAIN,)]
        assert [file.path for each in variants for file in each.files] == ["model.onnx"] * 2
        assert b"libstep" not in package.manifest.canonical_json()
        package.verify()
    assert f"needs    onnxruntime >=1.32; custom_ops {DOMAIN}" in aotpack("inspect", folder / "m.aotpack").out


def test_without_a_library_one_line_says_which_domain(folder: Path) -> None:
    package = folder / "m.aotpack"
    with pytest.raises(NothingToLoad, match=rf"domain {DOMAIN}.*give custom_ops=\[LIBRARY\]") as raised:
        api.load(package)
    assert {each.code for each in raised.value.refusals} == {Code.CUSTOM_OPS_MISSING}
    assert "build one for this machine" not in str(raised.value)
    assert f"operators of the domain {DOMAIN}" in aotpack("run", package).error
    assert not api.select(package).accepted
    selected = aotpack("select", package)
    assert (selected.status, "custom-ops-missing" in selected.out) == (3, True)


def test_it_is_not_compiled_here_in_vain(folder: Path) -> None:
    events: list[Event] = []
    with pytest.raises(NothingToLoad, match=DOMAIN):
        api.load(folder / "m.aotpack", on_miss="compile", on_event=events.append)
    assert {each.code for each in events} == {EventCode.NOT_TAKEN}


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_with_the_library_it_is_loaded(folder: Path, target: str) -> None:
    libraries = [folder / "libstep.so"]
    session = api.load(folder / "m.aotpack", custom_ops=libraries, policy=Policy(variant=target))
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected(1))


def test_which_library_is_up_to_who_loads(folder: Path, tmp_path: Path) -> None:
    other = library(tmp_path, step=10)
    with api.open(folder / "m.aotpack") as package:
        for _ in range(2):
            for path, step in ((folder / "libstep.so", 1), (other, 10)):
                session = package.load(custom_ops=path)
                np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected(step))


def prepared() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 3
    return options


def changed(options: ort.SessionOptions) -> None:
    options.intra_op_num_threads = 3


@pytest.mark.parametrize("given", [prepared(), changed], ids=["prepared", "function"])
def test_the_library_goes_with_session_options(
    folder: Path, given: ort.SessionOptions | Callable[[ort.SessionOptions], None]
) -> None:
    for _ in range(2):
        session = api.load(folder / "m.aotpack", session_options=given, custom_ops=str(folder / "libstep.so"))
        assert session.get_session_options().intra_op_num_threads == 3
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected(1))


def test_a_library_that_is_registered_twice_is_wrong_usage(folder: Path, tmp_path: Path) -> None:
    given, package = folder / "libstep.so", folder / "m.aotpack"
    copy = Path(shutil.copy(given, tmp_path))
    with pytest.raises(UsageError, match="custom_ops: an operator or its domain is registered twice"):
        api.load(
            package,
            custom_ops=given,
            session_options=lambda options: options.register_custom_ops_library(str(given)),
        )
    with pytest.raises(UsageError, match="registered twice"):
        api.load(package, custom_ops=[given, copy])
    with pytest.raises(UsageError, match="registered twice"):
        api.build(
            folder / "m.onnx",
            targets=["ort-cpu"],
            output=tmp_path / "m.aotpack",
            custom_ops=[given, copy],
        )
    # One that is prepared is copied without its libraries.
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(given))
    assert api.load(package, custom_ops=given, session_options=options).run(None, {"x": X})


def test_a_package_that_hides_its_needs_is_refused_without_a_library(folder: Path, tmp_path: Path) -> None:
    def silent(variant: Variant) -> Variant:
        requires = variant.compatibility.requires.replace(custom_ops=None)
        compatibility = variant.compatibility.replace(requires=requires)
        return variant.replace(compatibility=compatibility)

    hiding = repack(folder / "m.aotpack", tmp_path / "hiding.aotpack", silent)
    # First with a library: what was put together for that session is taken for no other.
    assert api.load(hiding, custom_ops=folder / "libstep.so").run(None, {"x": X})
    with pytest.raises(NothingToLoad, match=r"give its library \(custom_ops=") as raised:
        api.load(hiding)
    assert {each.code for each in raised.value.refusals} == {Code.MODEL_NOT_ALLOWED}


def test_a_choice_that_was_made_without_a_library_says_so(folder: Path) -> None:
    given = folder / "libstep.so"
    with api.open(folder / "m.aotpack") as package:
        with pytest.raises(NothingToLoad, match=r"give the libraries to select\(\), too"):
            package.load(package.select(), custom_ops=given)
        choice = package.select(custom_ops=given)
        assert package.load(choice, custom_ops=given).run(None, {"x": X})
        with pytest.raises(NothingToLoad, match="give its library"):
            package.load(choice)


def test_a_library_of_other_operators_is_what_onnx_runtime_refuses(folder: Path, tmp_path: Path) -> None:
    other = library(tmp_path, domain="other.ops")
    with pytest.raises(NothingToLoad, match=f"{DOMAIN}:Step.*is not a registered function/op") as raised:
        api.load(folder / "m.aotpack", custom_ops=[other])
    assert {each.code for each in raised.value.refusals} == {Code.LOAD_FAILED}


def test_what_is_no_library_is_wrong_usage(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"m\.onnx: cannot be loaded; found invalid ELF header"):
        api.load(folder / "m.aotpack", custom_ops=[folder / "m.onnx"])
    with pytest.raises(UsageError, match="is a folder"):
        api.load(folder / "m.aotpack", custom_ops=folder)


# Builds -----------------------------------------------------------------------------------------------------


def test_a_changed_library_builds_again_and_a_moved_one_does_not(folder: Path, tmp_path: Path) -> None:
    def built(path: Path) -> dict[str, tuple[bool, str | None]]:
        report = api.build(
            folder / "m.onnx", targets=["ort-cpu"], output=tmp_path / "m.aotpack", custom_ops=path
        )
        return {row.target: (row.cached, row.why) for row in report.rows}

    before = (tmp_path / "m.aotpack", folder / "m.aotpack")
    moved = Path(shutil.copy(folder / "libstep.so", tmp_path / "moved.so"))
    assert built(moved)["ort-cpu"] == (True, None)
    assert before[0].read_bytes() == before[1].read_bytes()
    (tmp_path / "other").mkdir()
    other = library(tmp_path / "other", step=2)
    assert built(other)["ort-cpu"] == (False, "Changed: the libraries of custom operators.")
    assert built(other)["ort-cpu"] == (True, None)
    with api.open(tmp_path / "m.aotpack") as now, api.open(folder / "m.aotpack") as then:
        ids = [[each.id for each in opened.component().variants] for opened in (now, then)]
    assert ids[0][0] != ids[1][0]
    # The portable variant is the source, whatever it was compared with.
    assert ids[0][1] == ids[1][1]


def test_components_without_such_operators_are_not_built_again(
    folder: Path, small_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "aotpack.toml"
    file.write_text(
        'name = "m"\ncustom_ops = "libstep.so"\n'
        f'[[component]]\nname = "before"\nmodel = "{folder}/m.onnx"\n'
        f'[[component]]\nname = "after"\nmodel = "{small_model}"\n'
        '[[target]]\ntarget = "ort-cpu"\n'
    )
    for step in (3, 4):
        library(tmp_path, step=step)
        rows = build_spec(read_build_file(file)).rows
    cached = {row.component: row.cached for row in rows if row.target == "ort-cpu"}
    assert cached == {"before": False, "after": True}
    session = api.load_all(tmp_path / "m.aotpack", custom_ops=iter([tmp_path / "libstep.so"]))["before"]
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected(4))


def test_a_library_that_changes_while_it_is_built_with_is_an_error(folder: Path, tmp_path: Path) -> None:
    given = library(tmp_path, step=5)

    def upgrade(event: Event) -> None:
        if event.code is EventCode.COMPILING:
            given.unlink()
            library(tmp_path, step=6)

    with pytest.raises(ModelError, match=r"libstep\.so: changed while it was built with"):
        api.build(
            folder / "m.onnx",
            targets=["ort-cpu"],
            output=tmp_path / "m.aotpack",
            custom_ops=given,
            on_event=upgrade,
        )


def test_a_build_without_the_library_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BuildFailed, match=rf"ort-cpu: The model uses operators of the domain {DOMAIN}"
    ) as got:
        api.build(folder / "m.onnx", targets=["ort-cpu"], output=tmp_path / "m.aotpack")
    rows = {row.target: row for row in got.value.report.rows}
    assert (rows["portable"].state, rows["portable"].numerics) == ("built", None)
    assert f"Not run here: The model uses operators of the domain {DOMAIN}" in (rows["portable"].reason or "")
    session = api.load(tmp_path / "m.aotpack", custom_ops=folder / "libstep.so")
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected(1))
    # What was not run for want of it is run when it is there.
    report = api.build(
        folder / "m.onnx", targets=[], output=tmp_path / "m.aotpack", custom_ops=folder / "libstep.so"
    )
    assert report.rows[0].numerics is not None


def test_other_machines_get_no_library(folder: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match="not sent to other machines"):
        api.build(
            folder / "m.onnx",
            targets=["ort-cpu"],
            output=tmp_path / "m.aotpack",
            custom_ops=folder / "libstep.so",
            executor=executor,
        )
    assert not (tmp_path / "m.aotpack").exists()


def test_a_library_that_crashes_is_one_line_before_anything_is_built(folder: Path, tmp_path: Path) -> None:
    crashing = library(tmp_path, before="__builtin_trap();")
    with pytest.raises(UsageError, match="loading them failed: the worker was killed by SIG"):
        api.build(folder / "m.onnx", targets=["ort-cpu"], output=tmp_path / "m.aotpack", custom_ops=crashing)
    with api.open(folder / "m.aotpack") as package, pytest.raises(UsageError, match="loading them failed"):
        check(package, custom_ops=crashing)
    assert not (tmp_path / "m.aotpack").exists()


def test_a_miss_is_compiled_for_with_the_library(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    only = repack(
        folder / "m.aotpack", tmp_path / "m.aotpack", lambda each: each if each.target == "portable" else None
    )
    policy = Policy(eps=frozenset({"CPUExecutionProvider"}))
    for step in (1, 2):
        (tmp_path / str(step)).mkdir()
        given = library(tmp_path / str(step), step=step)
        for code in (EventCode.RECOMPILED, None):
            events: list[Event] = []
            session = api.load(
                only, custom_ops=given, policy=policy, on_miss="compile", on_event=events.append
            )
            compiled = [each for each in events if each.code is EventCode.RECOMPILED]
            assert bool(compiled) is (code is not None), events
            np.testing.assert_array_equal(session.run(None, {"x": X})[0], expected(step))


def test_check_and_tune_run_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AOTPACK_CACHE", str(tmp_path / "cache"))
    with api.open(folder / "m.aotpack") as package:
        found, good = check(package, custom_ops=folder / "libstep.so", runs=3)
        assert good
        errors = [each.record.numerics.error for each in found.entries if each.record.numerics]
        assert errors == [0, 0]
        assert check(package)[0].entries == ()
        measured = tune(package, custom_ops=folder / "libstep.so", runs=3).measurements
        assert [each.failure for each in measured] == [None, None]


# The command line -------------------------------------------------------------------------------------------


def test_every_verb_that_makes_a_session_takes_libraries(folder: Path, tmp_path: Path) -> None:
    given = ("--custom-ops", "libstep.so")
    package, file = tmp_path / "m.aotpack", tmp_path / "aotpack.toml"
    done = aotpack("init", "m.onnx", "-o", file, *given, cwd=folder)
    assert done.status == 0, done.err
    assert "the first that it runs with" not in done.err
    assert 'libstep.so"]' in file.read_text()
    file.write_text(
        f'name = "m"\ncustom_ops = ["libstep.so"]\n[[component]]\nname = "main"\n'
        f'model = "{folder}/m.onnx"\n[[target]]\ntarget = "ort-cpu"\n'
    )
    missing = aotpack("build", file)
    assert missing.status == 2
    assert missing.error.startswith(f"{file}, line 2, custom_ops: {tmp_path}/libstep.so: No such file")
    # The command line's take the place of the file's, once that can be read at all.
    shutil.copy(folder / "libstep.so", tmp_path)
    assert aotpack("build", file).status == 0
    for arguments in (
        ("build", "m.onnx", "-t", "ort-cpu", "-o", package),
        ("run", package),
        ("select", package),
        ("check", package, "--runs", "3"),
        ("tune", package, "--runs", "3"),
        ("add", package, "-t", "ort-cpu", "-o", tmp_path / "added.aotpack", "--shape", "x=1,4"),
        ("refresh", package, "-o", tmp_path / "fresh.aotpack"),
    ):
        done = aotpack(*arguments, *given, cwd=folder)
        assert done.status == 0, (arguments, done.err)
    for verb in ("run", "check"):
        wrong = aotpack(verb, package, "--custom-ops", "m.onnx", cwd=folder)
        assert (wrong.status, "m.onnx: cannot be loaded; found invalid ELF" in wrong.error) == (2, True)
    assert "--custom-ops: .: is a folder" in aotpack("run", package, "--custom-ops", ".", cwd=folder).error


def test_what_is_said_of_a_fleet_takes_libraries_as_given(folder: Path, tmp_path: Path) -> None:
    assert "ort-cpu" in aotpack("coverage", folder / "m.aotpack", "--machines", "rtx-40").out
    out = tmp_path / "m.aotpack"
    assert aotpack("prune", folder / "m.aotpack", "-o", out, "--machine", "rtx-40").status == 0


# Models -----------------------------------------------------------------------------------------------------


def test_domains_are_those_that_a_loader_finds() -> None:
    """Functions of the model are none of them, and nested graphs are looked into."""
    inner = helper.make_graph(
        [helper.make_node("Deep", ["x"], ["z"], domain="deep.ops")],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    body = [helper.make_node("Below", ["a"], ["b"], domain="below.ops")]
    opsets = [
        helper.make_opsetid(name, 17 if not name else 1) for name in ("", "deep.ops", "below.ops", "own")
    ]
    function = helper.make_function("own", "F", ["a"], ["b"], body, opsets)
    nodes = [
        helper.make_node("F", ["x"], ["y"], domain="own"),
        helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner),
        helper.make_node("Gelu", ["y"], ["v"], domain="com.microsoft"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    c = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    made = helper.make_model(
        helper.make_graph(nodes, "g", [x, c], [y]), functions=[function], opset_imports=opsets
    )
    assert custom_domains(made) == ("below.ops", "deep.ops")


def extensions() -> str:
    package = pytest.importorskip("onnxruntime_extensions")
    path: str = package.get_library_path()
    return path


def test_a_tokenizer_of_onnxruntime_extensions(tmp_path: Path) -> None:
    """Strings in, strings out, by the wheel that people have."""
    given = extensions()
    x, y, n = (
        helper.make_tensor_value_info(name, kind, [2])
        for name, kind in (("x", TensorProto.STRING), ("y", TensorProto.STRING), ("n", TensorProto.INT64))
    )
    nodes = [
        helper.make_node("StringUpper", ["x"], ["y"], domain="ai.onnx.contrib"),
        helper.make_node("StringLength", ["y"], ["n"], domain="ai.onnx.contrib"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y, n])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    report = api.build(
        tmp_path / "m.onnx", targets=["ort-cpu"], output=tmp_path / "m.aotpack", custom_ops=[given]
    )
    assert [row.state for row in report.rows] == ["built", "built"]
    session = api.load(tmp_path / "m.aotpack", custom_ops=[given])
    texts, lengths = session.run(None, {"x": np.array(["abc", "xY"], object)})
    assert texts.tolist() == ["ABC", "XY"]
    assert lengths.tolist() == [3, 2]


def test_compilers_leave_a_custom_operator_to_the_cpu(tmp_path: Path) -> None:
    given = extensions()
    targets = compilable("openvino-cpu-avx2", "qnn-htp-v73")
    weights = numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 8)).astype("f4"), "w")
    x, y, *known = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y", "n", "p", "s")
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("NegPos", ["a"], ["n", "p"], domain="ai.onnx.contrib"),
        helper.make_node("Sub", ["p", "n"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [weights], value_info=known)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.contrib", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    report = api.build(
        tmp_path / "m.onnx", targets=targets, output=tmp_path / "m.aotpack", custom_ops=[given]
    )
    rows = {row.target: row for row in report.rows}
    for target in targets:
        coverage, numerics = rows[target].coverage, rows[target].numerics
        assert coverage is not None
        assert coverage.left_on_cpu == {"NegPos": 1}
        assert coverage.partitions == 2
        # It was loaded and run.
        assert numerics is not None
        assert numerics.error is not None
