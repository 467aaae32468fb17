"""ONNX that names files outside of its variant, or code: refused before anything reads its sidecars."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from aotpack.errors import NotAllowed
from aotpack.manifest.model_check import ANY_DOMAIN, NOTHING_MORE, Allowance, check_model
from aotpack.manifest.protobuf import MAX_DEPTH

#: Files of the variant, with their sizes in bytes.
FILES = {"model.onnx": 1000, "w.data": 4096, "sub/w.data": 16, "blob.bin": 64, "m.stripped.engine": 8}


@dataclass
class Bytes:
    data: bytes
    read: int = 0

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, size: int) -> bytes:
        found = self.data[offset : offset + size]
        self.read += len(found)
        return found


def check(model: ModelProto | bytes, allowance: Allowance = NOTHING_MORE, name: str = "model.onnx") -> None:
    data = model if isinstance(model, bytes) else model.SerializeToString()
    check_model(Bytes(data), name, FILES, allowance)


def tensor(location: str = "w.data", **more: object) -> TensorProto:
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    made.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        made.external_data.add(key=key, value=str(value))
    return made


def ep_context(**attributes: Any) -> NodeProto:
    given: dict[str, Any] = {
        "main_context": 1,
        "embed_mode": 0,
        "ep_cache_context": "blob.bin",
        "source": "EP",
    } | attributes
    kept = {key: value for key, value in given.items() if value is not None}
    return helper.make_node("EPContext", ["x"], ["y"], name="node", domain="com.microsoft", **kept)


def model_of(*nodes: NodeProto, initializers: list[TensorProto] | None = None) -> ModelProto:
    graph = helper.make_graph(list(nodes), "g", [], [], initializers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def _constant(made: TensorProto) -> NodeProto:
    return helper.make_node("Constant", [], ["c"], value=made)


def _if(*nodes: NodeProto, initializers: list[TensorProto] | None = None) -> NodeProto:
    inner = helper.make_graph(list(nodes), "branch", [], [], initializers or [])
    return helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=GraphProto(name="e"))


def _function(*nodes: NodeProto) -> ModelProto:
    made = model_of(helper.make_node("F", ["x"], ["y"], domain="mine"))
    made.functions.append(
        helper.make_function("mine", "F", ["x"], ["y"], list(nodes), [helper.make_opsetid("", 17)])
    )
    return made


def _training(node: NodeProto, field: str) -> ModelProto:
    made = model_of()
    getattr(made.training_info.add(), field).node.append(node)
    return made


def _sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2])


def _plain() -> TensorProto:
    return numpy_helper.from_array(np.zeros(2, np.int64), "i")


def _sparse_initializer(values: TensorProto, indices: TensorProto) -> ModelProto:
    made = model_of()
    made.graph.sparse_initializer.append(_sparse(values, indices))
    return made


def _attribute(**fields: object) -> NodeProto:
    made = helper.make_node("Constant", [], ["c"])
    made.attribute.append(AttributeProto(name="a", **fields))  # type: ignore[arg-type]
    return made


#: Where a tensor, or a node, can stand.
PLACES: dict[str, Callable[[TensorProto], ModelProto]] = {
    "initializer": lambda it: model_of(initializers=[it]),
    "constant": lambda it: model_of(_constant(it)),
    "tensors": lambda it: model_of(_attribute(tensors=[_plain(), it])),
    "sparse": lambda it: _sparse_initializer(it, _plain()),
    "sparse_indices": lambda it: _sparse_initializer(_plain(), it),
    "sparse_attribute": lambda it: model_of(_attribute(sparse_tensor=_sparse(it, _plain()))),
    "sparse_attributes": lambda it: model_of(_attribute(sparse_tensors=[_sparse(_plain(), it)])),
    "branch": lambda it: model_of(_if(_constant(it))),
    "branch_initializer": lambda it: model_of(_if(initializers=[it])),
    "nested": lambda it: model_of(_if(_if(_if(_constant(it))))),
    "graphs": lambda it: model_of(_attribute(graphs=[GraphProto(node=[_constant(it)])])),
    "function": lambda it: _function(_constant(it)),
    "function_branch": lambda it: _function(_if(_constant(it))),
    "training": lambda it: _training(_constant(it), "initialization"),
    "training_step": lambda it: _training(_constant(it), "algorithm"),
}

LOCATIONS = [
    "/etc/passwd",
    "../w.data",
    "sub/../../w.data",
    "a/b.data",
    "W.DATA",
    "w.data\0",
    "w.data ",
    "",
    ".",
    "*/_ORT_MEM_ADDR_/*",
    "C:w.data",
    "sub\\w.data",
    "file:///etc/passwd",
    "//host/share",
    "w.data/",
    "x" * 100_000,
]


@pytest.mark.parametrize("place", PLACES)
def test_data_of_tensors_lies_in_files_of_the_variant_wherever_they_stand(place: str) -> None:
    check(PLACES[place](tensor()))
    check(PLACES[place](tensor(offset=4000, length=96, checksum="a")))
    for location in LOCATIONS:
        with pytest.raises(NotAllowed, match=r"model\.onnx: external data"):
            check(PLACES[place](tensor(location)))


@pytest.mark.parametrize(
    "more",
    [
        {"offset": 4097},
        {"offset": 4000, "length": 97},
        {"length": 4097},
        {"offset": -1},
        {"offset": "0x10"},
        {"offset": " 1"},
        {"offset": "9" * 19},
        {"basepath": "/etc"},
        {"prepacked_0": "name|0;8"},
    ],
)
def test_a_place_lies_within_its_file(more: dict[str, Any]) -> None:
    with pytest.raises(NotAllowed, match="external data"):
        check(model_of(initializers=[tensor(**more)]))


def test_a_location_twice_none_and_one_that_is_not_asked_for() -> None:
    for made in (tensor(), tensor("../x"), tensor("x")):
        made.external_data.add(key="location", value="../x")
        with pytest.raises(NotAllowed, match="external data"):
            check(model_of(initializers=[made]))
    made = tensor("../x")
    made.data_location = TensorProto.DEFAULT
    with pytest.raises(NotAllowed, match="external data"):
        check(model_of(initializers=[made]))
    made = tensor()
    del made.external_data[:]
    with pytest.raises(NotAllowed, match="external data"):
        check(model_of(initializers=[made]))


def test_locations_are_beside_the_model() -> None:
    check(model_of(initializers=[tensor("./w.data")]))
    data = model_of(initializers=[tensor("w.data", length=17)]).SerializeToString()
    with pytest.raises(NotAllowed, match="has 16 bytes"):
        check_model(Bytes(data), "sub/model.onnx", FILES)


NODES: dict[str, Callable[[NodeProto], ModelProto]] = {
    "graph": model_of,
    "branch": lambda it: model_of(_if(it)),
    "function": _function,
    "training": lambda it: _training(it, "algorithm"),
}


@pytest.mark.parametrize("place", NODES)
@pytest.mark.parametrize(
    "attributes",
    [
        *({"ep_cache_context": location} for location in LOCATIONS),
        {"ep_cache_context": None},
        {"ep_cache_context": 1},
        {"ep_cache_context": ["blob.bin"]},
        {"ep_cache_context": "m.stripped.engine"},
        {"embed_mode": 1},
        {"embed_mode": None},
        {"embed_mode": "0"},
        {"main_context": 2},
        {"ep_dlc_context": "/tmp/evil.dlc"},
        {"ep_context_type": "dlc"},
        {"ep_refit_table": "x"},
        {"weights": "w.data"},
        {"partition_name": "/tmp/x"},
        {"partition_name": "../../x"},
        {"partition_name": "..\\x"},
        {"partition_name": "C:x"},
        {"notes": "http://host/x"},
        {"notes": "a\nb"},
        {"source": b"\xff\xfe"},
        {"onnx_model_filename": "a/b.onnx"},
        {"onnx_model_filename": "../b.onnx"},
        {"hardware_architecture": "/dev/x"},
        {"ep_context_op_domain": "mine"},
        {"max_size": -1},
    ],
    ids=lambda it: "=".join(map(str, next(iter(it.items()))))[:40],
)
def test_nodes_of_blobs_name_nothing_but_files_of_the_variant(
    place: str, attributes: dict[str, object]
) -> None:
    with pytest.raises(NotAllowed, match="EPContext node"):
        check(NODES[place](ep_context(**attributes)))


def test_nodes_of_blobs_that_eps_write() -> None:
    check(
        model_of(
            ep_context(
                ep_sdk_version="v2.51.0.260929181845",
                partition_name="QNNExecutionProvider_QNN_770_1_0",
                is_multi_soc_ep_context=1,
                max_size=0,
                onnx_model_filename="m.onnx",
                hardware_architecture="80+",
                notes="made on Friday",
            ),
            ep_context(main_context=0, ep_cache_context=None, embed_mode=None),
        )
    )


def test_an_attribute_twice_or_from_outside_a_function_is_none() -> None:
    twice = ep_context()
    twice.attribute.append(helper.make_attribute("ep_cache_context", "../x"))
    with pytest.raises(NotAllowed, match="'ep_cache_context' twice"):
        check(model_of(twice))
    outside = ep_context(ep_cache_context=None)
    outside.attribute.append(
        AttributeProto(name="ep_cache_context", ref_attr_name="a", type=AttributeProto.STRING)
    )
    with pytest.raises(NotAllowed, match="from outside"):
        check(_function(outside))
    many = ep_context()
    many.attribute.extend(helper.make_attribute(f"a{index}", 1) for index in range(100))
    with pytest.raises(NotAllowed, match="more than 64"):
        check(model_of(many))


def test_an_ep_says_which_other_attributes_it_reads() -> None:
    own = Allowance(attributes=frozenset({"mine"}))
    check(model_of(ep_context(mine="some text")), own)
    check(model_of(ep_context(mine=7)), own)
    with pytest.raises(NotAllowed, match="'mine'"):
        check(model_of(ep_context(mine="/etc/x")), own)


@pytest.mark.parametrize("place", NODES)
@pytest.mark.parametrize(
    ("domain", "operator"),
    [
        ("ai.onnx.contrib", "PyOp"),
        ("com.microsoft.extensions", "AzureTextToText"),
        ("org.pytorch.aten", "ATen"),
        ("trt.plugins", "Any"),
        ("mine", "Relu"),
        ("com.microsoft.", "Gelu"),
        ("AI.ONNX", "Relu"),
    ],
)
def test_operators_of_other_domains_need_somebody_who_allows_them(
    place: str, domain: str, operator: str
) -> None:
    made = NODES[place](helper.make_node(operator, ["x"], ["y"], domain=domain))
    with pytest.raises(NotAllowed, match=f"operator '{operator}' of the domain '{domain}'"):
        check(made)
    check(made, Allowance(domains=frozenset({domain})))
    check(made, Allowance(domains=ANY_DOMAIN))
    with pytest.raises(NotAllowed):
        check(made, Allowance(domains=frozenset({"another"})))


def test_operators_that_run_what_they_bring_along_are_never_allowed() -> None:
    for name in ("PyOp", "PythonOp", "Snpe"):
        with pytest.raises(NotAllowed, match="runs code"):
            check(
                model_of(helper.make_node(name, [], [], domain="com.microsoft")),
                Allowance(domains=ANY_DOMAIN),
            )


def test_functions_of_the_model_are_its_own() -> None:
    made = _function(helper.make_node("Relu", ["x"], ["y"]))
    check(made)
    made.functions[0].overload = "other"
    with pytest.raises(NotAllowed, match="'F' of the domain 'mine'"):
        check(made)
    made.graph.node[0].overload = "other"
    check(made)


def test_metadata_does_not_set_options() -> None:
    made = model_of()
    helper.set_model_props(made, {"author": "x" * 200_000})
    check(made)
    helper.set_model_props(made, {"ort_config": '{"session_options": {"enable_profiling": 1}}'})
    with pytest.raises(NotAllowed, match="ort_config"):
        check(made)


def test_a_name_does_not_make_it_of_another_format() -> None:
    with pytest.raises(NotAllowed, match="ORT's own format"):
        check(model_of(), name="model.ORT")


def _varint(value: int) -> bytes:
    return bytes((value & 127 | 128, *_varint(value >> 7))) if value > 127 else bytes((value,))


def test_what_is_malformed_is_refused() -> None:
    good = model_of(_if(_constant(tensor())), initializers=[tensor()]).SerializeToString()
    check(good)
    # By hand, as protobuf writes none: a graph in an attribute (6) in a node (5) in a graph (1).
    deep = b""
    for index in range(MAX_DEPTH + 2):
        deep = bytes(((6, 5, 1)[index % 3] << 3 | 2,)) + _varint(len(deep)) + deep
    deep = b"\x3a" + _varint(len(deep)) + deep
    for bad in (
        good[:-1],
        good + b"\x3a",
        good + b"\x3a\x00",  # a second graph
        good + b"\x3a\xff\xff\xff\xff\x7f",
        good + b"\x3b\x3c",  # a group
        good + b"\x02\x00",  # field 0
        good + b"\x38\x01",  # a graph that is a number
        b"\xff" * 11,
        deep,
    ):
        with pytest.raises(NotAllowed, match=r"model\.onnx: "):
            check(bad)


def test_weights_are_not_read() -> None:
    made = model_of(initializers=[numpy_helper.from_array(np.zeros(1 << 22, np.float32), "w")] * 4)
    data = Bytes(made.SerializeToString())
    check_model(data, "model.onnx", FILES)
    assert data.read < data.size / 20


def _all_tensors(graph: GraphProto) -> list[TensorProto]:
    found = [*graph.initializer]
    for sparse in graph.sparse_initializer:
        found += [sparse.values, sparse.indices]
    for node in graph.node:
        found += _of_node(node)
    return found


def _of_node(node: NodeProto) -> list[TensorProto]:
    found = []
    for item in node.attribute:
        found += [item.t, *item.tensors]
        for sparse in (item.sparse_tensor, *item.sparse_tensors):
            found += [sparse.values, sparse.indices]
        for graph in (item.g, *item.graphs):
            found += _all_tensors(graph)
    return found


def test_what_is_let_through_names_no_other_file_by_protobufs_own_reader() -> None:
    """Bytes at random changed, cut and doubled: the two readers must not find different things."""
    source = model_of(
        _if(_constant(tensor("w.data", offset=0))), ep_context(), initializers=[tensor("sub/w.data")]
    ).SerializeToString()
    chance, let_through = random.Random(11), 0
    for _ in range(6000):
        data = bytearray(source)
        for _ in range(chance.choice((1, 1, 2, 4))):
            place, kind = chance.randrange(len(data)), chance.randrange(4)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                data[place] ^= 1 << chance.randrange(8)
            elif kind == 2:
                end = chance.randrange(place, len(data) + 1)
                data[place:end] = b""
            else:
                end = chance.randrange(place, len(data) + 1)
                data[place:place] = data[place:end]
            if not data:
                break
        try:
            check(bytes(data))
        except NotAllowed:
            continue
        try:
            parsed = ModelProto.FromString(bytes(data))
        except DecodeError:
            continue
        let_through += 1
        graphs = [parsed.graph, *(g for t in parsed.training_info for g in (t.initialization, t.algorithm))]
        nodes = [*(n for f in parsed.functions for n in f.node), *(n for g in graphs for n in g.node)]
        tensors = [*(t for g in graphs for t in _all_tensors(g)), *(t for n in nodes for t in _of_node(n))]
        for each in tensors:
            locations = [item.value for item in each.external_data if item.key == "location"]
            assert set(locations) <= set(FILES), bytes(data)
            assert locations or each.data_location != TensorProto.EXTERNAL, bytes(data)
        for node in nodes:
            if node.op_type == "EPContext":
                blobs = [a.s.decode() for a in node.attribute if a.name == "ep_cache_context"]
                assert set(blobs) <= set(FILES), bytes(data)
    assert let_through > 100


def test_a_variant_that_is_refused_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    from aotpack.cache.variants import Cache
    from aotpack.container.reader import PackageReader
    from tests.attacks.forge import honest, sha256, xxh3

    forged = honest()
    content = model_of(initializers=[tensor("../../../etc/passwd")]).SerializeToString()
    forged.store(2, content, content)
    forged.files[0] |= {"size": len(content), "sha256": sha256(content)}
    forged.segments[2]["xxh3"] = xxh3(content)
    cache = Cache(tmp_path / "cache")
    with PackageReader.open(forged.write(tmp_path / "evil.aotpack")) as reader:
        component = reader.manifest.components[0]
        for _ in range(2):
            with pytest.raises(NotAllowed, match="external data"):
                cache.materialise(reader, component, component.variants[0], NOTHING_MORE)
        # Files that go to no session are only files; they never stand in for those that do.
        cache.materialise(reader, component, component.variants[0])
        with pytest.raises(NotAllowed, match="external data"):
            cache.materialise(reader, component, component.variants[0], NOTHING_MORE)
    assert len(cache.entries()) == 1
