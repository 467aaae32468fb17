"""The base of all values that cross a file: frozen, strict, nothing unknown let in."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "Name", "Sha256", "Value", "Xxh3"]


class Value(BaseModel):
    """A frozen value; equal content is equal. Unknown keys and loose types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


#: The name of a component, variant or target: also a folder name, so no separator and no leading dot.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$")]

#: A byte count or an index. 2**53 - 1 is the largest integer that every JSON reader keeps exactly.
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

#: xxh3-128, hex.
Xxh3 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
