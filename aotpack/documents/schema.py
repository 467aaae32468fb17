"""JSON Schemas of everything that aotpack reads and writes as JSON or TOML, generated from its values.

``python -m aotpack.documents.schema --write schemas`` writes them; a test holds the files to the code.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aotpack.extras import require

require("build")

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from aotpack.builder.report import BuildReport
from aotpack.builder.spec_file import BuildFile
from aotpack.common.values import Value
from aotpack.documents.doctor import DoctorDocument
from aotpack.documents.verbs import (
    CacheDocument,
    CoverageDocument,
    ExtractDocument,
    FlexDocument,
    InspectDocument,
    MachinesDocument,
    RunDocument,
    SelectionDocument,
    TargetsDocument,
    VerifyDocument,
)
from aotpack.errors import AotpackError, OutputError
from aotpack.machine.profile import Machine
from aotpack.manifest.records import RecordFile
from aotpack.manifest.values import Manifest
from aotpack.runtime.difference import Difference
from aotpack.runtime.tuning import Tuning

__all__ = ["DOCUMENTS", "schemas", "write"]

#: The kinds of document, by name, and the value that each one is.
DOCUMENTS: Mapping[str, type[BaseModel | Value]] = {
    "build-file": BuildFile,
    "build-report": BuildReport,
    "cache": CacheDocument,
    "coverage": CoverageDocument,
    "difference": Difference,
    "doctor": DoctorDocument,
    "extract": ExtractDocument,
    "flex": FlexDocument,
    "inspect": InspectDocument,
    "machine": Machine,
    "machines": MachinesDocument,
    "manifest": Manifest,
    "records": RecordFile,
    "run": RunDocument,
    "selection": SelectionDocument,
    "targets": TargetsDocument,
    "tuning": Tuning,
    "verify": VerifyDocument,
}

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each kind of document, in JSON Schema's dialect 2020-12."""
    return {name: _schema(name, value) for name, value in DOCUMENTS.items()}


def write(folder: Path) -> list[Path]:
    """Write each schema to ``<folder>/<name>.schema.json`` and return the paths.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, schema in schemas().items():
            path = folder / f"{name}.schema.json"
            path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            paths.append(path)
    except OSError as error:
        raise OutputError("cannot be written", where=folder, found=error.strerror) from error
    return paths


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: object) -> bool:
        # pydantic's titles of fields only repeat their names in capitals.
        return False


def _schema(name: str, value: type[BaseModel | Value]) -> dict[str, Any]:
    # "validation" is what a reader accepts: keys that have a default may be left out.
    if issubclass(value, BaseModel):
        generated = value.model_json_schema(mode="validation", schema_generator=_Untitled)
    else:
        (generated,), components = msgspec.json.schema_components([value], ref_template="#/$defs/{name}")
        for part in components.values():
            if "properties" in part:
                part["additionalProperties"] = False
            if "description" in part:
                # Releases of msgspec before 0.23 keep the indentation of docstrings.
                part["description"] = inspect.cleandoc(part["description"])
        # Defaults of tuples are tuples, which JSON has not.
        generated = json.loads(json.dumps(components.pop(value.__name__) | {"$defs": components}))
    # A URN, for the schemas are files of a release and not pages at an address.
    identity = {"$schema": _DIALECT, "$id": f"urn:aotpack:schema:{name}", "title": f"aotpack {name}"}
    return identity | {key: item for key, item in generated.items() if key != "title"}


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aotpack.documents.schema", description="Write the JSON Schemas."
    )
    parser.add_argument("--write", metavar="FOLDER", type=Path, required=True, help="where to put them")
    try:
        write(parser.parse_args().write)
    except AotpackError as error:
        parser.exit(error.exit_status, f"error: {error}\n")


if __name__ == "__main__":
    _main()
