"""What a machine loads when its best variant does not fit, or fits and does not load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aotpack.container.reader import PackageReader
from aotpack.manifest.values import Variant
from tests.command_line import aotpack, environment
from tests.conftest import BuiltPackage
from tests.hardware import why_not
from tests.repack import repack, with_string

#: The best variant of the machine that the tests below are, and what makes it so: an emulated NPU where the
#: CPU has no compiler of its own.
ON_CPU = why_not("openvino-cpu-avx2") is None
BEST = "openvino-cpu-avx2" if ON_CPU else "qnn-htp-v79"
MACHINE = {"ONEDNN_MAX_CPU_ISA": "AVX2"} if ON_CPU else {}
EMULATE = () if ON_CPU else ("--emulate",)

#: In a compatibility string, and instead of it that of another release.
RELEASE, OTHER_RELEASE = (r"ov=[\d.]+", "ov=2020.1.0") if ON_CPU else (r":5\.[\d.]+:", ":5.999.0:")


@pytest.fixture(scope="module")
def package(vad: BuiltPackage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's package; of variants that fit this machine, those of `BEST` and of onnxruntime alone."""
    path = tmp_path_factory.mktemp("next") / "vad.aotpack"
    return repack(
        vad.path, path, lambda variant: variant if ON_CPU or is_best(variant) or not is_npu(variant) else None
    )


def is_npu(variant: Variant) -> bool:
    return variant.device == "npu"


def is_best(variant: Variant) -> bool:
    return variant.target == BEST


def other_release(variant: Variant) -> Variant:
    """As if it was compiled by another release of the vendor's runtime."""
    text = variant.compatibility.ep_string
    if not is_best(variant) or text is None:
        return variant
    changed, count = re.subn(RELEASE, OTHER_RELEASE, text)
    assert count == 1
    return with_string(variant, changed)


def test_a_string_of_another_release_leads_to_the_next_candidate(package: Path, tmp_path: Path) -> None:
    package = repack(package, tmp_path / "other.aotpack", other_release)
    selection = aotpack("select", package, *EMULATE, "--json", env=MACHINE).document("selection")
    best = next(each for each in selection["candidates"] if each["target"] == BEST)
    assert (best["verdict"], best["code"]) == ("UNSUPPORTED", "runtime-version")
    assert OTHER_RELEASE.strip("ov=:") in best["reason"]
    assert not ON_CPU or best["by"] == "ep", "the EP itself says the same"
    run = aotpack("run", package, *EMULATE, "--runs", 1, "--json", env=MACHINE).document("run")
    assert run["target"] == "ort-cpu"
    assert run["refused"] == [], "it was never handed to the EP"


def damaged(
    how: Callable[[bytes], bytes], folder: Path, package: Path
) -> Callable[[Variant, str], Path | None]:
    """Another blob for the best variant, right by its digests."""

    def files(variant: Variant, path: str) -> Path | None:
        if not is_best(variant) or path.endswith(".onnx"):
            return None
        with PackageReader.open(package) as reader:
            blob = reader.read_file(next(file for file in variant.files if file.path == path))
        (folder / "blob").write_bytes(how(blob))
        return folder / "blob"

    return files


@pytest.mark.parametrize(
    "how", [lambda blob: b"not a blob at all", lambda blob: blob[: len(blob) // 2]], ids=["junk", "cut"]
)
def test_a_blob_that_its_ep_refuses_leads_to_the_next_candidate(
    package: Path, tmp_path: Path, how: Callable[[bytes], bytes]
) -> None:
    files = damaged(how, tmp_path, package)
    package = repack(package, tmp_path / "damaged.aotpack", lambda variant: variant, files=files)
    assert aotpack("verify", package).status == 0
    done = aotpack("-v", "run", package, *EMULATE, "--runs", 1, "--json", env=MACHINE)
    assert done.status == 0, done.err
    run = done.document("run")
    assert run["target"] == "ort-cpu"
    (refusal,) = run["refused"]
    refused, reason = refusal["variant"], refusal["reason"]
    assert refused.startswith(BEST)
    assert reason
    assert refusal["code"] == "load-failed"
    assert len(refusal["details"]) >= len(reason)
    # Every step is said: those that do not fit, the one that fits and does not load, the one that does.
    steps = [line for line in done.err.splitlines() if line.startswith("aotpack.load: ")]
    with PackageReader.open(package) as reader:
        unfit = len(list(reader.manifest.variants())) - len(["ort-cpu", "portable", BEST])
    assert sum(" [not-taken: " in line for line in steps) == unfit
    assert any(line.endswith(f"{refused} [refused: load-failed] {reason}") for line in steps)
    assert f"{run['variant']} [loaded: fits]" in steps[-1]


def test_bytes_that_fail_their_digest_never_reach_an_ep(package: Path, tmp_path: Path) -> None:
    rotten = tmp_path / "rotten.aotpack"
    rotten.write_bytes(package.read_bytes())
    with PackageReader.open(package) as reader:
        best = next(filter(is_best, reader.manifest.variants()))
        others = {
            index
            for variant in reader.manifest.variants()
            if not is_best(variant)
            for file in variant.files
            for index in file.segments
        }
        mine = [index for index in best.files[1].segments if index not in others]
        segment = reader.manifest.segments[mine[0]]
    with rotten.open("r+b") as file:
        file.seek(segment.offset + segment.stored // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    # A cache of its own: the others have the right bytes already.
    mine_alone = MACHINE | {"AOTPACK_CACHE": str(tmp_path / "cache")}
    run = aotpack("run", rotten, *EMULATE, "--runs", 1, "--json", env=mine_alone).document("run")
    assert run["target"] == "ort-cpu"
    (refusal,) = run["refused"]
    assert refusal["variant"] == best.id
    assert "segments[" in refusal["reason"]
    verified = aotpack("verify", rotten)
    assert verified.status == 1
    assert f"segments[{mine[0]}]" in verified.error


def test_when_nothing_is_left_one_error_lists_every_variant(vad: BuiltPackage, tmp_path: Path) -> None:
    package = repack(
        vad.path,
        tmp_path / "none.aotpack",
        lambda variant: None if variant.ep == "CPUExecutionProvider" else variant,
        files=damaged(lambda blob: b"junk", tmp_path, vad.path),
    )
    # What is emulated and not damaged would load.
    others = () if ON_CPU else ("--variant", best_id(package))
    done = aotpack("run", package, *EMULATE, *others, env=MACHINE)
    assert done.status == 1
    assert "no variant can be loaded on this machine" in done.error
    with PackageReader.open(package) as reader:
        ids = [variant.id for variant in reader.manifest.variants()]
    assert len(ids) >= 3
    assert all(f"{each}: " in done.error for each in ids)
    assert done.out == ""


def best_id(package: Path) -> str:
    with PackageReader.open(package) as reader:
        return next(filter(is_best, reader.manifest.variants())).id


LISTED = """
import sys, aotpack
from aotpack.errors import NothingToLoad
try:
    aotpack.load(sys.argv[1])
except NothingToLoad as error:
    print("\\n".join(each.variant for each in error.refusals if each.reason))
"""


def test_the_error_has_the_reasons_as_data(vad: BuiltPackage, tmp_path: Path) -> None:
    package = repack(
        vad.path, tmp_path / "npu.aotpack", lambda variant: variant if variant.device == "npu" else None
    )
    done = subprocess.run(
        [sys.executable, "-c", LISTED, package],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.rsplit("-", 1)[0] for line in done.stdout.split()] == [
        "qnn-htp-v73",
        "qnn-htp-v75",
        "qnn-htp-v79",
    ]


def test_a_variant_that_nobody_can_judge_is_the_last_resort_and_says_so(
    vad: BuiltPackage, tmp_path: Path
) -> None:
    def of_another_maker(variant: Variant) -> Variant | None:
        return variant.replace(toolchain="nobody") if is_best(variant) else None

    package = repack(vad.path, tmp_path / "unknown.aotpack", of_another_maker)
    selection = aotpack("select", package, "--json").document("selection")
    assert selection["last_resort"] is True
    (candidate,) = selection["candidates"]
    assert (candidate["verdict"], candidate["code"]) == ("UNKNOWN", "toolchain-unknown")
    done = aotpack("run", package)
    assert done.status == 1
    assert "toolchain nobody: is not known here" in done.error
