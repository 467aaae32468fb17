"""The public API is that of the committed file, so that no change of it goes unseen (docs/stability.md)."""

from __future__ import annotations

import difflib

from tests.public_api import SNAPSHOT, public_api


def test_the_public_api_is_the_committed_one() -> None:
    committed, found = SNAPSHOT.read_text(encoding="utf-8"), public_api()
    changes = difflib.unified_diff(
        committed.splitlines(), found.splitlines(), "committed", "found", lineterm=""
    )
    assert committed == found, "\n".join(
        ["run `make api` if this is meant, and say it in CHANGELOG.md:", *changes]
    )
