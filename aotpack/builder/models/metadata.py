"""What a model says of itself beside its graph: custom metadata, producer, version, descriptions.

Programs read their settings from there, class names and strides among them, so each variant of a model has to
say what the model says. Compilers keep some of it, or none.
"""

from __future__ import annotations

import stat
from pathlib import Path

from aotpack.builder.models.model import load_graph, save_graph

__all__ = ["copy_metadata"]

#: Of `onnx.ModelProto`: what `onnxruntime.InferenceSession.get_modelmeta` gives beside the custom metadata.
_FIELDS = ("producer_name", "producer_version", "domain", "model_version", "doc_string")
#: What EPs write there of a compiled model. In a model that is to be compiled it says nothing of the result.
_OF_COMPILED = "ep_compatibility_info."


def copy_metadata(source: Path, compiled: Path) -> None:
    """Write the metadata of the model `source` into the model `compiled`, which keeps entries of its own.

    Raises:
        ModelError: one of them cannot be read, or the other would be larger than protobuf allows.
        OSError: `compiled` cannot be written.
    """
    status = compiled.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        # Somebody else's file, which is refused when it is taken.
        return
    said, made = load_graph(source), load_graph(compiled)
    before = made.SerializeToString(deterministic=True)
    for field in _FIELDS:
        if value := getattr(said, field):
            setattr(made, field, value)
    if said.graph.doc_string:
        made.graph.doc_string = said.graph.doc_string
    known = {item.key for item in made.metadata_props}
    for item in said.metadata_props:
        if item.key not in known and not item.key.startswith(_OF_COMPILED):
            made.metadata_props.add(key=item.key, value=item.value)
    if made.SerializeToString(deterministic=True) != before:
        # It may be read-only.
        compiled.unlink()
        save_graph(made, compiled)
