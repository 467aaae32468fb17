"""What a package says of itself: Manifest > Component > Variant > File > Segment.

The values are frozen; docs/format.md says what each key means. `aotpack.manifest.parsing` reads them
from untrusted bytes; `Manifest.to_json` writes the canonical form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, field

from aotpack.common.values import MAX_KEYS, MAX_TEXT, Count, Integer, Name, Sha256, Text, Value, Xxh3

__all__ = [
    "ALIGNED_FROM",
    "FORMAT_VERSION",
    "MAX_COMPONENTS",
    "MAX_FILES",
    "MAX_NODES",
    "MAX_RANK",
    "MAX_RECORDS",
    "MAX_SEGMENTS",
    "MAX_SEGMENT_SIZE",
    "MAX_TENSORS",
    "MAX_TEXT",
    "MAX_VALUES",
    "MAX_VARIANTS",
    "PAGE_SIZE",
    "Compatibility",
    "Component",
    "Coverage",
    "File",
    "FlexLowering",
    "Manifest",
    "Numerics",
    "OutputNumerics",
    "Record",
    "Requirements",
    "Segment",
    "SessionSettings",
    "Source",
    "TensorInfo",
    "Variant",
    "Width",
]

#: The format version that this release writes.
FORMAT_VERSION = "1.0"

#: A pipeline has tens of models, a model some hundreds of attention subgraphs.
MAX_COMPONENTS = 4096
#: Of one component. ORT's own model packages slow down visibly at 1,000 (docs/toolchains/ort.md).
MAX_VARIANTS = 4096
#: Of one variant: an EPContext model has one sidecar a partition.
MAX_FILES = 4096
#: Inputs of a component, and outputs. A cache of a hundred layers has some hundred.
MAX_TENSORS = 65536
#: Lowered FlexAttention nodes of a variant.
MAX_NODES = 65536
#: Of one variant, one a machine.
MAX_RECORDS = 256
#: Dimensions of a shape; numpy takes as many.
MAX_RANK = 64
#: At 4 MiB a segment this is a quarter of a terabyte.
MAX_SEGMENTS = 65536
#: Values in the manifest's JSON, of any kind. A JSON parser takes some hundred bytes for each, however short
#: its text is, and the limits above are only known to be kept when it is done.
MAX_VALUES = 1048576
#: Bounds what one decompression can allocate.
MAX_SEGMENT_SIZE = 64 * 1024 * 1024
#: Raw segments of `ALIGNED_FROM` bytes and more start at a multiple of this, so that they can be mapped and
#: reflinked. Smaller ones are packed close: padding would cost them up to their own size.
PAGE_SIZE = 4096
#: In bytes; see `PAGE_SIZE`.
ALIGNED_FROM = 65536


_T = TypeVar("_T")

#: Bytes of an element: fp16 and bf16, fp32.
Width = Literal[2, 4]

_Options = Annotated[dict[Text, Text], Meta(max_length=MAX_KEYS)]
_Counts = Annotated[dict[Text, Count], Meta(max_length=MAX_KEYS)]
_Texts = Annotated[tuple[Text, ...], Meta(max_length=MAX_KEYS)]


#: A size, a symbolic name, or None where nothing is known, for each axis.
_Shape = Annotated[tuple[Integer | Text | None, ...], Meta(max_length=MAX_RANK)]


class _Part(Value, forbid_unknown_fields=False, omit_defaults=True, kw_only=True):
    """A value of the manifest: a key with its default is left out, except for those that are `_written`.

    `aotpack.manifest.parsing` refuses unknown keys, unless the manifest is of a newer minor version.
    """


def _written(default: _T) -> _T:
    """A default that canonical JSON holds: `omit_defaults` leaves out no result of a function of ours.

    For keys of the first packages. A later key is left out where it has its default, so that the canonical
    JSON of an old package is the same as ever.
    """
    made: _T = field(default_factory=lambda: default)
    return made


class TensorInfo(_Part, kw_only=True):
    """An input or output of a component."""

    name: Text
    #: numpy's name of the element type, such as ``float32``; ONNX's where numpy has none (``bfloat16``,
    #: ``string``).
    dtype: Text
    #: None if the rank is open.
    shape: _Shape | None = None


class Source(_Part, kw_only=True):
    """The ONNX model that a component was compiled from."""

    #: Over the model file, and then over each external data file in the order of their paths.
    sha256: Sha256
    size: Count
    opsets: _Counts


class Requirements(_Part, kw_only=True):
    """What a machine must have, in our words: for EPs that write no string, and beside the others' string.

    None means that nothing is required.
    """

    os: _Texts | None = None
    arch: Text | None = None
    #: CPU features by archspec's names, such as ``avx2`` or ``amx_bf16``.
    isa: _Texts | None = None
    #: Version specifiers (PEP 440).
    onnxruntime: Text | None = None
    ep: Text | None = None
    #: Domains of operators that ONNX Runtime does not have: whoever loads it gives their libraries.
    custom_ops: _Texts | None = None


class Compatibility(_Part, kw_only=True):
    """What decides whether a variant fits a machine."""

    #: What the EP wrote under ``ep_compatibility_info.<EP>``, byte for byte; None if it writes none.
    ep_string: Text | None = None
    requires: Requirements = _written(Requirements())


class SessionSettings(_Part, kw_only=True):
    """What a session must be created with."""

    provider_options: _Options = _written({})
    config: _Options = _written({})
    #: ``disabled`` for graphs that were optimised when they were built.
    graph_optimization: Literal["default", "disabled"] = _written("default")


class Coverage(_Part, kw_only=True):
    """How much of the model the EP took."""

    #: Nodes of the prepared graph, before compiling.
    nodes: Count
    #: Those of them that went into a compiled partition.
    compiled: Count
    partitions: Count
    #: Operator type to number of nodes that stay outside every partition.
    left_on_cpu: _Counts = _written({})


#: Of errors, tolerances and seconds.
_Magnitude = Annotated[float, Meta(ge=0)]


class OutputNumerics(_Part, kw_only=True):
    """One output of a variant beside the same output of the portable model."""

    #: The output's name; ``name[0]``, ``name{keys}`` and ``name{values}`` are parts of a sequence or map.
    name: Text
    #: ``relative``: the largest root mean square of a slice's difference, over the slice's scale.
    #: ``unequal``: the share that differs of the elements that are not the most common value.
    measure: Literal["relative", "unequal"] | None = None
    error: _Magnitude | None = None
    #: What `error` was held to; above the tolerance of the build where only the output's own noise allows it.
    tolerance: _Magnitude | None = None
    #: The largest absolute difference.
    max_abs: _Magnitude | None = None
    cosine: Annotated[float, Meta(ge=-1, le=1)] | None = None
    #: The error that moving inputs and weights by the precision's rounding makes in the portable model
    #: itself.
    noise: _Magnitude | None = None
    #: What there is to know of it.
    remark: Text | None = None
    #: Why it was not compared; there are no numbers then.
    not_compared: Text | None = None


class Numerics(_Part, kw_only=True):
    """A variant's outputs beside the portable model's on the same inputs. Every number was measured.

    `max_abs`, `error` and `tolerance` are those of the output that is nearest to its tolerance; None if no
    output could be compared. Packages of before format 1.1 have these and `ran_on` alone, of one tensor for
    all.
    """

    #: max |variant - portable| over all outputs.
    max_abs: _Magnitude | None = None
    error: _Magnitude | None = None
    tolerance: _Magnitude | None = None
    #: ``host``, ``isa-emulation`` or ``emulator``.
    ran_on: Text
    #: How many inputs it was run on.
    samples: Count | None = None
    #: Whose: ``given`` by who built it, or ``made`` up.
    inputs: Text | None = None
    outputs: Annotated[tuple[OutputNumerics, ...], Meta(max_length=MAX_NODES)] = ()

    @property
    def error_text(self) -> str:
        """The error for a table; nothing where no output was compared."""
        return "" if self.error is None else f"{self.error:.1e}"


class Record(_Part, kw_only=True):
    """What `aotpack check` found of a variant on one machine, which need not be the one that built it."""

    #: What its owner calls it.
    machine: Text
    os: Text
    arch: Text
    cpu: Text | None = None
    #: What it ran on: the name of the GPU or NPU, where that is known.
    device: Text | None = None
    driver: Text | None = None
    #: Of what ran it: package names to versions.
    versions: _Options = _written({})
    #: In seconds; the last is the median of `runs` runs.
    load_seconds: _Magnitude | None = None
    first_run_seconds: _Magnitude | None = None
    run_seconds: _Magnitude | None = None
    runs: Count = _written(0)
    #: Highest resident memory of the process, in bytes.
    peak_memory: Count | None = None
    #: None: it was not compared.
    numerics: Numerics | None = None
    #: Why it does not run there, what is off, or why it was not compared; None if all is well.
    failure: Text | None = None


class FlexLowering(_Part, kw_only=True):
    """How one FlexAttention node was lowered."""

    node: Text
    lowering: Text
    #: Share of (query block, key block) pairs that are never computed, 0 to 1.
    blocks_skipped: float
    why: Text


class Segment(_Part, kw_only=True):
    """The unit in which a container stores, checks and shares bytes."""

    #: From the start of the package file, in bytes.
    offset: Count
    #: Length in the package, in bytes.
    stored: Count
    #: Length of the content, in bytes.
    size: Annotated[int, Meta(ge=1, le=MAX_SEGMENT_SIZE)]
    codec: Literal["raw", "zstd"]
    #: Bytes of an element where the frame holds the content shuffled: `aotpack.container.shuffling`.
    shuffle: Width | None = None
    #: Both are of the content, not of what is stored.
    sha256: Sha256
    xxh3: Xxh3


class File(_Part, kw_only=True):
    """A file of a variant: the segments whose contents, one after the other, are its bytes."""

    path: Text
    size: Count
    sha256: Sha256
    segments: Annotated[tuple[Count, ...], Meta(max_length=MAX_SEGMENTS)]


class Variant(_Part, kw_only=True):
    """One component compiled for one target. The first of its files is the ONNX model to load."""

    id: Name
    target: Name
    #: The toolchain whose rules judge this variant.
    toolchain: Name
    ep: Text
    device: Literal["cpu", "gpu", "npu"]
    precision: Text | None = None
    #: The shape that it was compiled for, of each input whose sizes the component leaves open. A size that is
    #: open here too can be any. None: it does not say.
    shapes: Annotated[dict[Text, _Shape], Meta(max_length=MAX_KEYS)] | None = None
    #: Among variants that fit equally well the higher one is taken.
    specificity: Integer = _written(0)
    compatibility: Compatibility = _written(Compatibility())
    session: SessionSettings = _written(SessionSettings())
    #: Package names to versions.
    built_with: _Options = _written({})
    coverage: Coverage | None = None
    #: None: it was not compared, for the reason in `not_compared`.
    numerics: Numerics | None = None
    not_compared: Text | None = None
    #: Of machines on which it was checked after it was built.
    records: Annotated[tuple[Record, ...], Meta(max_length=MAX_RECORDS)] = ()
    flex: Annotated[tuple[FlexLowering, ...], Meta(max_length=MAX_NODES)] = _written(())
    #: Empty only on the way to the writer, which fills it in.
    files: Annotated[tuple[File, ...], Meta(max_length=MAX_FILES)] = _written(())

    @property
    def size(self) -> int:
        """Bytes on disk when materialised."""
        return sum(file.size for file in self.files)


class Component(_Part, kw_only=True):
    """A whole model, or one FlexAttention subgraph."""

    name: Name
    kind: Literal["model", "flex-attention"] = _written("model")
    source: Source
    inputs: Annotated[tuple[TensorInfo, ...], Meta(max_length=MAX_TENSORS)]
    outputs: Annotated[tuple[TensorInfo, ...], Meta(max_length=MAX_TENSORS)]
    variants: Annotated[tuple[Variant, ...], Meta(max_length=MAX_VARIANTS)]


class Manifest(_Part, kw_only=True):
    """The whole of what a package says of itself."""

    aotpack: Annotated[str, Meta(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}$(?!\n)")] = _written(FORMAT_VERSION)
    name: Name
    version: Text = _written("0")
    #: SPDX expression of what the models are licensed under.
    license: Text | None = None
    components: Annotated[tuple[Component, ...], Meta(min_length=1, max_length=MAX_COMPONENTS)]
    segments: Annotated[tuple[Segment, ...], Meta(max_length=MAX_SEGMENTS)] = _written(())

    def canonical_json(self) -> bytes:
        """UTF-8, no white space, keys in the order of docs/format.md, maps sorted.

        Raises:
            msgspec.ValidationError: a field is not of its type or form, or JSON cannot hold it.
        """
        return msgspec.json.encode(self.validated(), order="deterministic")

    def variants(self) -> Iterator[Variant]:
        """All variants of all components, in the package's order."""
        for component in self.components:
            yield from component.variants
