"""``aotpack flex build|show``.

::

    aotpack flex build --mod causal --shape 1,8,1024,64 -t ort-cpu -o a.aotpack
    aotpack flex show model.onnx --png pictures
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aotpack.builder.flex_settings import parse_flex
from aotpack.cli import output
from aotpack.cli.build import run_build, show_report, targets_of
from aotpack.cli.options import AsJson, Block, Force, KvHeads, Lowering, MaskedRows, NewPackage
from aotpack.errors import OutputError, UsageError
from aotpack.files.scratch import scratch_folder

if TYPE_CHECKING:
    from aotpack.documents.verbs import FlexNodeDocument
    from aotpack.flex.mask import BlockMask
    from aotpack.flex.reordering import Order
    from aotpack.flex.understand import Understanding

__all__ = ["flex"]

#: The group of verbs.
flex = typer.Typer(
    help="FlexAttention: packages of one attention, and pictures of masks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@flex.command(short_help="Build a package of one attention out of its shape and mods.")
def build(
    out: NewPackage,
    shape: Annotated[str, typer.Option(metavar="B,H,L,E", help="Shape of the queries.", show_default=False)],
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            "-t",
            metavar="NAME",
            help="A target to compile for; can be repeated.",
            show_default=False,
        ),
    ],
    mod: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:VALUES]",
            help="Such as causal, window:512 or softcap:30 (docs/flex.md has all); can be repeated.",
        ),
    ] = None,
    kv_shape: Annotated[
        str | None, typer.Option(metavar="B,H,S,E", help="Shape of keys and values; by default the queries'.")
    ] = None,
    length: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE", help="A size of a symbolic dimension, a component each; can be repeated."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16 or float64.")] = "float32",
    masked_rows: MaskedRows = None,
    lowering: Lowering = None,
    block: Block = None,
    kv_heads: KvHeads = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="Exit with 0 although targets failed.")
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Build a package of one attention, from nothing but its shape and its mods."""
    from aotpack.builder.models.subgraphs import attention_components
    from aotpack.builder.spec import BuildSpec
    from aotpack.flex import attention, buckets
    from aotpack.flex.named import parse_mods

    settings, own = parse_flex(
        {
            "--masked-rows": [masked_rows] if masked_rows else [],
            "--lowering": lowering or [],
            "--block": block or [],
            "--kv-heads": kv_heads or [],
        },
        target,
    )
    score_mod, prob_mod = parse_mods(mod or [])
    model = attention(
        _four(shape, "--shape"),
        kv_shape=None if kv_shape is None else _four(kv_shape, "--kv-shape"),
        dtype=dtype,
        score_mod=score_mod,
        prob_mod=prob_mod,
    )
    models = {"attention": model}
    for name, sizes in _sizes(length or []).items():
        models = {
            f"{before}-{size}": fixed
            for before, each in models.items()
            for size, fixed in buckets(each, name, sizes)
        }
    with scratch_folder("flex") as scratch:
        spec = BuildSpec(
            name="attention",
            output=out,
            components=attention_components(models, scratch, settings),
            targets=tuple(targets_of(target, flex=own)),
            force=force,
        )
        show_report(run_build(spec, as_json, keep_going=keep_going), as_json)


def _sizes(texts: list[str]) -> dict[str, list[int]]:
    sizes: dict[str, list[int]] = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal():
            raise UsageError("is not a length", where=f"--length {text}", expected="NAME=SIZE such as L=1024")
        sizes.setdefault(name, []).append(int(size))
    return sizes


@flex.command(short_help="Draw the masks of a model, with the share that is skipped.")
def show(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.", show_default=False)],
    png: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write each mask as a PNG as well.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the mask of each FlexAttention node, with the share of blocks that are skipped."""
    from aotpack.builder.models.model import read_graph
    from aotpack.documents.verbs import FlexDocument, FlexNodeDocument
    from aotpack.flex import read, to_png, to_text, understand

    graph = read_graph(model)
    opset = next((each.version for each in graph.opset_import if not each.domain), 0)
    documents = []
    masks = []
    for node in read(graph):
        known = understand(node, opset)
        masks.append((known.mask, *_in_another_order(known)))
        picture = None
        if png is not None and known.mask is not None:
            picture = _write(png, node.name, to_png(known.mask))
        documents.append(
            FlexNodeDocument(
                node=node.name,
                q_shape=node.q_shape,
                k_shape=node.k_shape,
                v_shape=node.v_shape,
                blocks_skipped=known.mask.skipped if known.mask is not None else 0.0,
                why_dense=known.why_dense,
                picture=picture,
            )
        )
    if as_json:
        output.print_json(FlexDocument(model=str(model), nodes=tuple(documents)))
        return
    for document, (mask, order, other) in zip(documents, masks, strict=True):
        _draw(document, mask)
        if other is not None:
            output.print_text(f"the same, {order}:\n{to_text(other)}")
    if not documents:
        output.print_text(f"{model} has no FlexAttention node")


def _in_another_order(known: Understanding) -> tuple[Order | None, BlockMask | None]:
    """Another order in which a lowering may take the positions, and the mask in it, if that skips more."""
    from aotpack.flex.mask import block_mask
    from aotpack.flex.reordering import best_orders, is_scattered, reordered

    if known.mask is None or known.score_mod is None or not is_scattered(known.mask):
        return None, None
    for order in best_orders(known.score_mod, 1):
        program = reordered(known.score_mod, order)
        if program is not None and (mask := block_mask(program)).skipped > known.mask.skipped:
            return order, mask
    return None, None


def _draw(document: FlexNodeDocument, mask: BlockMask | None) -> None:
    from aotpack.flex import to_text

    shapes = ", ".join(
        f"{name} {'x'.join(map(str, shape))}"
        for name, shape in (("Q", document.q_shape), ("K", document.k_shape), ("V", document.v_shape))
    )
    output.print_text(f"{document.node}: {shapes}")
    if mask is not None:
        output.print_text(to_text(mask))
    if document.why_dense is not None:
        output.print_text(f"dense: {document.why_dense}")
    if document.picture is not None:
        output.print_text(document.picture)


def _write(folder: Path, node: str, picture: bytes) -> str:
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in node)
    path = folder / f"{name.strip('.') or 'attention'}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        raise OutputError(error.strerror or str(error), where=path) from None
    return str(path)


def _four(text: str, option: str) -> tuple[int | str, int, int | str, int]:
    parts = text.split(",")
    if len(parts) != 4 or not all(parts):
        raise UsageError(
            "is not a shape", where=f"{option} {text}", expected="four sizes such as 1,8,1024,64"
        )
    batch, heads, length, size = (int(part) if part.isdecimal() else part for part in parts)
    if isinstance(heads, str) or isinstance(size, str):
        raise UsageError("has symbolic heads or head size", where=f"{option} {text}", expected="numbers")
    return batch, heads, length, size
