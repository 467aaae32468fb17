"""What a process keeps of packages that it has closed, and of strings that it was asked about."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable

from aotpack.common.remember import MAX_ENTRIES, MAX_LENGTH, remember_short
from aotpack.machine.profile import find_machine
from aotpack.manifest.parsing import parse
from aotpack.manifest.values import Compatibility, Component, Requirements, Source
from aotpack.selection.select import select
from aotpack.toolchains import toolchains
from tests.attacks.forge import honest
from tests.made_packages import variant

#: What each manifest or component below says takes more than this.
LARGE = 2_000_000
ROUNDS = 8


def kept(once: Callable[[int], object]) -> int:
    """Bytes that are left of `once`, called for one number after the other."""
    once(0)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, 1 + ROUNDS):
            once(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_nothing_is_kept_of_the_paths_of_a_closed_package() -> None:
    def once(number: int) -> None:
        forged = honest()
        deep = ("\U00010400" * 60 + "/") * 15
        first = forged.files[0]
        forged.variant["files"] += [first | {"path": f"{number}-{index}{deep}x"} for index in range(800)]
        text = json.dumps(forged.manifest).encode()
        assert len(text) > LARGE
        parse(text)

    assert kept(once) < LARGE


def test_nothing_large_is_kept_of_what_variants_require() -> None:
    machine, known = find_machine("avx512-server"), toolchains()

    def once(number: int) -> None:
        long = str(number) * 30_000
        inner = f"meta=1.0;ov={long};isa={long}"
        string = json.dumps(
            {"ovep_compat_ver": "1.0", "ovep_ver": "1", "ovep_bin_ver": "1.1", "ov_compat_string": inner},
            separators=(",", ":"),
        )
        many = [
            variant("openvino-cpu-avx2", f"{string}{' ' * index}", called=f"v{index}").replace(
                compatibility=Compatibility(
                    ep_string=f"{string}{' ' * index}",
                    requires=Requirements(
                        arch="x86_64", isa=(f"{index}{long}",), onnxruntime=">=1" + " " * index * 1000
                    ),
                )
            )
            for index in range(20)
        ]
        source = Source(sha256="0" * 64, size=1, opsets={})
        component = Component(name="main", source=source, inputs=(), outputs=(), variants=tuple(many))
        assert len(select(component, machine, known, here=False).candidates) == 20

    assert kept(once) < LARGE


def test_short_arguments_are_remembered_up_to_a_number_and_long_ones_not() -> None:
    asked: list[object] = []

    def make(text: str, more: tuple[str, ...] | None) -> int:
        asked.append((text, more))
        return len(asked)

    known = remember_short(make)
    assert known("a", ("b",)) == known("a", ("b",)) == 1
    assert known("a", None) == 2
    long = ("x" * MAX_LENGTH,)
    assert (known("a", long), known("a", long)) == (3, 4)
    assert (known("a", ("",) * 2000), known("a", ("",) * 2000)) == (5, 6), "items count, too"
    for number in range(MAX_ENTRIES):
        known(str(number), None)
    count = len(asked)
    assert known("a", ("b",)) == count + 1, "the oldest ones go"
    known.forget()
    known("1", None)
    assert len(asked) == count + 2
