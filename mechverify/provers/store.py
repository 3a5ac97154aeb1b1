"""Finished obligations, kept in a file as soon as they are known, and never proved twice.

The file is an SQLite database, keyed by content: what was asked (claim, weights, part of the domain), and the code that
answered. Whatever ends the process loses what was in hand, and nothing else. What the file says is believed of the
search alone: the kernel checks every certificate that is made of it.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mechverify.claims.errors import ClaimError

ROOT = Path(__file__).parent.parent
TABLE = (
    "CREATE TABLE IF NOT EXISTS finished (asked TEXT PRIMARY KEY, answer TEXT NOT NULL)"
)
PUT = "INSERT OR REPLACE INTO finished VALUES (?, ?)"


class Store:
    """`known` counts what was found in it, `new` what was put there; `broken` says why nothing is any more. Raises
    ClaimError for a file of another kind."""

    def __init__(self, path: Path):
        self.path, self.known, self.new, self.broken = path, 0, 0, ""
        try:
            self.database = sqlite3.connect(path, timeout=60)
            self.database.execute("PRAGMA journal_mode=WAL")
            self.database.execute(
                "PRAGMA synchronous=NORMAL"
            )  # survives a killed process
            with self.database:
                self.database.execute(TABLE)
        except sqlite3.Error as error:
            raise ClaimError(
                f"--store {path}: {error}; give a file that is new, or a store"
            ) from None

    def once(
        self,
        asked: Any,
        answer: Callable[[], Any],
        whole: Callable[[], bool] = lambda: True,
    ) -> Any:
        """The answer, as JSON gives it back; it is kept if it is `whole`. What raises leaves nothing."""
        key = self.key(asked)
        found = self.find(key)
        if found is not None:
            return json.loads(found)
        text = json.dumps(answer(), default=plain)
        if whole():
            self.keep(key, text)
        return json.loads(text)

    @staticmethod
    def key(asked: Any) -> str:
        text = json.dumps([code(), asked], sort_keys=True, default=plain)
        return hashlib.sha256(text.encode()).hexdigest()

    def find(self, key: str) -> str | None:
        """The answer that is kept, as JSON."""
        found = self._known(key)
        self.known += found is not None
        return found

    def keep(self, key: str, answer: str) -> None:
        if self.broken:
            return
        try:
            with self.database:
                self.database.execute(PUT, [key, answer])
            self.new += 1
        except sqlite3.Error as error:  # say, a full disk: the proof goes on
            self.broken = str(error)

    def _known(self, key: str) -> str | None:
        try:
            found = self.database.execute(
                "SELECT answer FROM finished WHERE asked = ?", [key]
            ).fetchone()
        except sqlite3.Error as error:  # a spoilt file: what it held is found anew
            self.broken = str(error)
            return None
        return None if found is None else found[0]


def plain(value: Any) -> Any:
    """What JSON doesn't know: arrays, with every bit of their numbers."""
    if isinstance(value, np.ndarray):
        return (
            [value.shape, value.dtype.str, value.tobytes().hex()]
            if value.dtype.kind == "f"
            else value.tolist()
        )
    return value.item() if isinstance(value, np.generic) else str(value)


@cache
def code() -> str:
    """A hash of what answers: other code, other answers."""
    files = [
        p
        for folder in ("kernel", "provers", "relax", "graph")
        for p in sorted((ROOT / folder).rglob("*.py"))
    ]
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in files)).hexdigest()
