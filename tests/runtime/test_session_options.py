"""Options that the caller brings: they reach the session, stay his own, and take nothing away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.capi import _pybind_state

import aotpack
from aotpack import Package, Policy
from aotpack.cache.variants import Cache
from aotpack.errors import UsageError
from aotpack.manifest.values import SessionSettings, Variant
from aotpack.runtime.load_options import SessionChange
from aotpack.runtime.session_options import options_for
from aotpack.toolchains import toolchains
from tests.command_line import aotpack as command

#: Of the package that is loaded here: ONNX Runtime's graph, and a blob for an EP that has to be added.
TARGETS = ("ort-cpu", "qnn-htp-v73")

Given: TypeAlias = ort.SessionOptions | SessionChange


@pytest.fixture(scope="module")
def path(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("options") / "m.aotpack"
    aotpack.build(small_model, targets=TARGETS, output=output)
    return output


def loaded(path: Path, target: str, given: Given) -> ort.InferenceSession:
    with aotpack.open(path) as package:
        (variant,) = [each.id for each in package.component().variants if each.target == target]
        return package.load(policy=Policy(variant=variant), emulate=True, session_options=given)


def of_server() -> ort.SessionOptions:
    """As a server prepares them."""
    options = ort.SessionOptions()
    _change(options)
    return options


def _change(options: ort.SessionOptions) -> None:
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 2
    options.log_severity_level = 3
    options.logid = "of the server"
    options.enable_cpu_mem_arena = False
    options.use_deterministic_compute = True
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def attributes(options: ort.SessionOptions) -> dict[str, object]:
    names = [name for name in dir(options) if not name.startswith("_")]
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if not callable(value)}


@pytest.mark.parametrize("target", [*TARGETS, "portable"])
@pytest.mark.parametrize("give", [of_server, lambda: _change], ids=["prepared", "function"])
def test_what_a_server_sets_is_what_the_session_has(
    path: Path, target: str, give: Callable[[], Given]
) -> None:
    session = loaded(path, target, give())
    found = session.get_session_options()
    assert attributes(found) == attributes(of_server())
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.run(None, {"image": np.ones((1, 3, 8, 8), np.float32)})


def test_prepared_options_serve_any_number_of_loads_and_stay_as_they_were(path: Path) -> None:
    """An EP that is added to options twice, or left in them for the next variant, is a fault."""
    options = of_server()
    for target in ("qnn-htp-v73", "ort-cpu", "qnn-htp-v73", "portable"):
        session = loaded(path, target, options)
        assert ("QNNExecutionProvider" in session.get_providers()) == (target == "qnn-htp-v73")
        assert attributes(options) == attributes(of_server())
        assert not options.has_providers()
    with pytest.raises(RuntimeError, match="does not have configuration"):
        options.get_session_config_entry("session.disable_model_compile")


def test_a_candidate_that_is_refused_leaves_nothing_in_them_for_the_next(path: Path, tmp_path: Path) -> None:
    options = of_server()
    with aotpack.open(path) as opened:
        package = Package(opened.reader, cache=Cache(tmp_path))
        (blob,) = [each for each in package.component().variants if each.target == "qnn-htp-v73"]
        folder = package.cache.materialise(package.reader, package.component(), blob)
        selection = package.select(emulate=True)
        assert selection.chosen is not None
        assert selection.chosen.id == blob.id
        broken = blob.replace(compatibility=blob.compatibility, files=blob.files[:1])
        assert broken.files[0].path
        candidates = (selection.chosen._replace(variant=broken), *selection.candidates[1:])
        for file in folder.rglob("*"):
            if file.is_file() and file.name != broken.files[0].path:
                file.unlink()
        found = package.load_first(
            type(selection)(selection.component, candidates), emulate=True, session_options=options
        )
    assert [refusal.variant for refusal in found.refused] == [blob.id]
    assert found.session.get_providers() == ["CPUExecutionProvider"]
    assert attributes(found.session.get_session_options()) == attributes(options)


@pytest.mark.parametrize("target", TARGETS)
def test_a_profile_is_written_by_the_session_and_by_nothing_else(
    path: Path, target: str, tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = loaded(path, target, options)
    session.run(None, {"image": np.ones((1, 3, 8, 8), np.float32)})
    (profile,) = tmp_path.iterdir()
    assert session.end_profiling() == str(profile)
    assert json.loads(profile.read_text())
    assert options.enable_profiling


def test_threads_that_share_options_have_a_profile_each(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is made with profiling off, which is no moment to make a session of the same options."""
    make = _pybind_state.InferenceSession

    def slow(given: ort.SessionOptions, model: bytes | str, *others: object) -> object:
        # Bytes are those of a copy.
        time.sleep(0.2 if isinstance(model, bytes) else 0.1)
        return make(given, model, *others)

    monkeypatch.setattr(_pybind_state, "InferenceSession", slow)
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    targets = ("qnn-htp-v73", *["portable"] * 6)
    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(lambda target: loaded(path, target, options), targets))
    assert all(session.end_profiling() for session in sessions)
    assert options.enable_profiling


def test_options_with_an_execution_provider_are_refused(path: Path) -> None:
    def add(options: ort.SessionOptions) -> None:
        options.add_provider("CPUExecutionProvider", {})

    def prefer(options: ort.SessionOptions) -> None:
        options.set_provider_selection_policy(ort.OrtExecutionProviderDevicePolicy.PREFER_CPU)

    for change in (add, prefer):
        prepared = ort.SessionOptions()
        change(prepared)
        for given in (change, prepared):
            with pytest.raises(UsageError, match=r"session_options: have an execution provider.*Policy"):
                loaded(path, "ort-cpu", given)


def variant(**settings: object) -> Variant:
    return Variant(
        id="v",
        target="ort-cpu",
        toolchain="ort",
        ep="CPUExecutionProvider",
        device="cpu",
        session=SessionSettings.from_builtins(settings),
    )


def options_of(given: Given | None, **settings: object) -> ort.SessionOptions:
    return options_for(variant(**settings), Path("m.onnx"), toolchains()["ort"], given, emulate=False)


def entry(key: str, value: str) -> SessionChange:
    return lambda options: options.add_session_config_entry(key, value)


def both(change: SessionChange) -> tuple[Given, Given]:
    """The function, and options that it has changed."""
    prepared = ort.SessionOptions()
    change(prepared)
    return change, prepared


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("session.disable_model_compile", "0", "variant v needs it"),
        ("ep.context_enable", "1", "compiled when the package was built"),
        ("session.load_model_format", "ORT", "are ONNX"),
        ("session.model_external_initializers_file_folder_path", "/elsewhere", "beside the variant's ONNX"),
        ("ep.context_file_path", "/elsewhere/m_ctx.onnx", "lie beside its ONNX"),
        ("ep.cpuexecutionprovider.precision", "fp16", "variant v was compiled with it"),
    ],
)
def test_an_entry_that_takes_away_what_the_package_needs_is_refused(key: str, value: str, why: str) -> None:
    settings = {
        "config": {"session.disable_model_compile": "1"},
        "provider_options": {"precision": "fp32"},
    }
    for given in both(entry(key, value)):
        with pytest.raises(UsageError, match=f"session_options: change {key}; found {value}.*{why}"):
            options_of(given, **settings)
    # What agrees with the package is no contradiction.
    for given in both(entry("session.disable_model_compile", "1")):
        options_of(given, **settings)
    for given in both(entry("ep.cpuexecutionprovider.precision", "fp32")):
        options_of(given, **settings)


def test_an_option_of_the_ep_that_a_blob_was_compiled_with_is_not_replaced_in_silence(path: Path) -> None:
    for given in both(entry("ep.qnnexecutionprovider.htp_arch", "68")):
        with pytest.raises(
            UsageError, match=r"change ep\.qnnexecutionprovider\.htp_arch; found 68; expected 73"
        ):
            loaded(path, "qnn-htp-v73", given)


def test_what_would_make_every_compiled_variant_fail_does_not_cost_the_device_in_silence(
    path: Path, tmp_path: Path
) -> None:
    """ONNX Runtime would refuse each, and the load would end with a variant for the CPU."""

    def keep_graph(options: ort.SessionOptions) -> None:
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")

    for given in both(keep_graph):
        with pytest.raises(UsageError, match=r"change optimized_model_filepath.*is compiled"):
            aotpack.load(path, emulate=True, session_options=given)
        assert loaded(path, "portable", given)
    for given in both(entry("ep.context_file_path", str(tmp_path / "m_ctx.onnx"))):
        with pytest.raises(UsageError, match=r"change ep\.context_file_path"):
            aotpack.load(path, emulate=True, session_options=given)


def test_a_graph_that_was_optimised_when_it_was_built_stays_as_it_is() -> None:
    levels = ort.GraphOptimizationLevel

    def level(to: ort.GraphOptimizationLevel) -> SessionChange:
        return lambda options: setattr(options, "graph_optimization_level", to)

    for to in (levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED):
        for given in both(level(to)):
            with pytest.raises(UsageError, match=rf"level; found {to.name}.*optimised when"):
                options_of(given, graph_optimization="disabled")
            # Any other variant may have it.
            assert options_of(given).graph_optimization_level == to
    untouched = ort.SessionOptions()
    assert (
        options_of(untouched, graph_optimization="disabled").graph_optimization_level
        == levels.ORT_DISABLE_ALL
    )
    assert untouched.graph_optimization_level == levels.ORT_ENABLE_ALL
    with pytest.raises(UsageError, match="found ORT_ENABLE_ALL"):
        options_of(level(levels.ORT_ENABLE_ALL), graph_optimization="disabled")


def test_options_that_need_nothing_are_used_themselves() -> None:
    """Libraries of custom operators cannot be copied."""
    prepared = ort.SessionOptions()
    assert options_of(prepared) is prepared
    assert options_of(prepared, config={"session.disable_model_compile": "1"}) is not prepared
    # By such a name ONNX Runtime takes a file for its own format, unless it is told otherwise.
    options = options_for(variant(), Path("m.ORT"), toolchains()["ort"], prepared, emulate=False)
    assert options.get_session_config_entry("session.load_model_format") == "ONNX"


def test_a_function_that_raises_is_the_callers_mistake_and_keeps_its_traceback(path: Path) -> None:
    def fails(options: ort.SessionOptions) -> None:
        raise KeyError("threads")

    with pytest.raises(
        UsageError, match="session_options: the function raised; found KeyError: 'threads'"
    ) as e:
        loaded(path, "ort-cpu", fails)
    assert isinstance(e.value.__cause__, KeyError)


def test_a_function_may_return_what_it_was_given_and_nothing_else(path: Path) -> None:
    assert loaded(path, "ort-cpu", lambda options: options)
    with pytest.raises(UsageError, match=r"returned something else.*found SessionOptions.*expected None"):
        loaded(path, "ort-cpu", lambda options: ort.SessionOptions())


@pytest.mark.parametrize("given", [{"intra_op_num_threads": 1}, 4, "threads=1"])
def test_what_is_neither_options_nor_a_function_is_refused(path: Path, given: Any) -> None:
    with pytest.raises(UsageError, match="session_options: is neither options nor a function"):
        loaded(path, "ort-cpu", given)


def test_the_class_is_taken_for_neither(path: Path) -> None:
    with pytest.raises(UsageError, match="is neither options nor a function; found the class SessionOptions"):
        loaded(path, "ort-cpu", ort.SessionOptions)


def test_the_command_line_sets_threads(path: Path) -> None:
    for arguments, intra, inter in (
        (["--threads", 1], 1, 0),
        (["--threads", 2, "--inter-threads", 3], 2, 3),
    ):
        done = command("run", path, "--runs", 1, "--json", *arguments)
        document = done.document("run")
        assert (document["threads"], document["inter_threads"]) == (intra, inter)
    for wrong in (0, 1025, 100_000):
        assert command("run", path, "--threads", wrong).status == 2
        assert command("run", path, "--inter-threads", wrong).status == 2
