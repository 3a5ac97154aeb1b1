"""Reading certificate data with every type, range and length checked, and no field left unread."""

import re
from collections.abc import Collection, Iterator
from fractions import Fraction
from math import isfinite
from typing import Any

from mechverify.kernel.core.errors import Rejected

KNOWN = 40  # names in a message


def _known(name: str) -> str:
    """A name that may be a file's own."""
    return name if re.fullmatch(r"[\w.:]{1,60}", name, re.ASCII) else f"{name!r:.60}"


class Reader:
    """A JSON value and where it stands. Every method rejects a value of another type than it asks for."""

    def __init__(self, value: Any, where: str):
        self.value, self.where = value, where
        self._unread = set(value) if type(value) is dict else set()

    def _need(self, condition: bool, what: str) -> None:
        if not condition:
            raise Rejected(f"{self.where}: {what}")

    def __getitem__(self, name: str) -> "Reader":
        self._need(
            type(self.value) is dict and name in self.value,
            f"field {name!r} is missing",
        )
        self._unread.discard(name)
        return Reader(self.value[name], f"{self.where}.{name}")

    def close(self) -> None:
        self._need(not self._unread, f"unknown fields {sorted(map(str, self._unread))}")

    def items(self, most: int = 2**24, least: int = 0) -> "Items":
        good = type(self.value) is list and least <= len(self.value) <= most
        self._need(good, f"expected a list of {least} to {most} entries")
        return Items(self.value, self.where)

    def text(self) -> str:
        self._need(type(self.value) is str, "expected text")
        return self.value

    def one_of(self, known: Collection[str]) -> str:
        if type(self.value) is not str or self.value not in known:
            names = [*map(_known, known)][:KNOWN]
            self._need(False, f"{str(self.value)[:80]!r}; known: {', '.join(names)}")
        return self.value

    def flag(self) -> bool:
        self._need(type(self.value) is bool, "expected true or false")
        return self.value

    def an_integer(self, low: int = 1 - 2**62, high: int = 2**62 - 1) -> int:
        self._need(
            type(self.value) is int and low <= self.value <= high,
            f"expected an integer in [{low}, {high}]",
        )
        return self.value

    def integers(self, most: int = 2**24) -> list[int]:
        self._need(
            type(self.value) is list and len(self.value) <= most,
            f"expected a list of at most {most}",
        )
        self._need(
            all(type(v) is int and abs(v) < 2**62 for v in self.value),
            "expected integers",
        )
        return self.value

    def number(self) -> Fraction:
        """A rational number, exactly: a float64 in hexadecimal as Python writes it, or "p/q"."""
        if re.fullmatch(r"-?[0-9]{1,400}/[1-9][0-9]{0,399}", self.text()):
            return Fraction(self.text())
        return Fraction(self._hexadecimal())

    def float64(self) -> float:
        if "/" not in self.text():
            return self._hexadecimal()
        value = self.number()
        fits = abs(value) < 2**1024 - 2**970 and Fraction(float(value)) == value
        self._need(fits, "expected a number that is a float64")
        return float(value)

    def _hexadecimal(self) -> float:
        """What Python writes as this text, and no other."""
        try:
            value = float.fromhex(self.text())
        except (OverflowError, ValueError):
            value = float("inf")
        canonical = isfinite(value) and value.hex() == self.text()
        self._need(
            canonical, 'expected a number as text: a float64 in hexadecimal, or "p/q"'
        )
        return value + 0.0  # -0.0 is 0, as in a fraction

    def natural(self) -> int:
        """A non-negative integer of any size, written as decimal text (JSON numbers lose digits elsewhere)."""
        text = self.text()
        plain = (
            0 < len(text) <= 4000
            and text.isascii()
            and text.isdigit()
            and (text == "0" or text[0] != "0")
        )
        self._need(plain, "expected a natural number as text")
        return int(text)


class Items:
    """The readers of a list's entries, each made when it is asked for: a long list costs no more than itself."""

    def __init__(self, values: list, where: str):
        self.values, self.where = values, where

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Reader:
        return Reader(self.values[i], f"{self.where}[{i}]")

    def __iter__(self) -> Iterator[Reader]:
        return (
            Reader(value, f"{self.where}[{i}]") for i, value in enumerate(self.values)
        )
