"""How numbers and a file's own names are written: a number as itself or visibly rounded towards the weaker statement,
and a name so that it can't pass for anything else. Nothing here decides."""

import json
import re
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, Context
from fractions import Fraction
from hashlib import sha256

from mechverify.kernel.core.texts import NAME

DIGITS = 60  # characters of a number written as a decimal
SIGNIFICANT = 7  # digits of one that is rounded
LONG = 400  # characters of a list; of a longer one the first entries, and a hash of all
FIRST = 8  # entries that are shown of a list that is too long

PRINTED = re.compile(r"[A-Za-z0-9_]+([.@-][A-Za-z0-9_]+)*")
READS_AS_MORE = re.compile(
    r"(x|t|n|input|node|site)[0-9]*"
)  # tokens, shared parts, nodes, real inputs


def number(value: Fraction | float) -> str:
    """The number itself: an integer or a decimal of at most 60 characters; where it is neither, an integer times a
    power of two if it is one, else a fraction p/q. No two numbers are written alike."""
    value = Fraction(value)
    p, q = value.numerator, value.denominator
    twos = (q & -q).bit_length() - 1
    if max(twos, p.bit_length() // 4, q.bit_length() // 4) <= DIGITS:
        fives, rest = 0, q >> twos
        while rest % 5 == 0:
            fives, rest = fives + 1, rest // 5
        places = max(twos, fives)
        digits = f"{abs(p) * 10**places // q:0{places + 1}d}"
        text = ("-" if p < 0 else "") + (
            f"{digits[:-places]}.{digits[-places:]}" if places else digits
        )
        if rest == 1 and len(text) <= DIGITS:
            return text
    if q == 1 << twos and p:
        zeros = (p & -p).bit_length() - 1
        if zeros != twos:
            return f"{p >> zeros}*2^{zeros - twos}"
    return f"{p}/{q}" if q > 1 else str(p)


def about(value: Fraction | float, up: bool) -> str:
    """`value` rounded up, or down, to seven significant digits. The caller says which of the two is weaker."""
    value = Fraction(value)
    if not value:
        return "0"
    size = abs(value)
    power = len(str(size.numerator)) - len(str(size.denominator))
    power -= size < Fraction(10) ** power  # 10^power <= size < 10^(power + 1)
    unit = Fraction(10) ** (power - SIGNIFICANT + 1)
    whole = -(-value // unit) if up else value // unit
    if -6 < power < 15:
        return number(whole * unit)
    digits = str(abs(whole))
    power += len(digits) - SIGNIFICANT  # rounding may carry
    tail = digits[1:].rstrip("0")
    return f"{'-' if whole < 0 else ''}{digits[0]}{'.' + tail if tail else ''}e{power}"


def decimal(value: Fraction, places: int, up: bool) -> str:
    """`value` rounded up, or down, to so many decimal places."""
    scaled = value * 10**places
    whole = (
        -(-scaled.numerator // scaled.denominator)
        if up
        else scaled.numerator // scaled.denominator
    )
    digits = f"{abs(whole):0{places + 1}d}"
    return f"{'-' if whole < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def share(part: int, total: int, up: bool) -> str:
    """part / total rounded up, or down, to eight decimal places, or so many more that it doesn't read as 0 or 1."""
    value = Fraction(part, total)
    for places in (8, 20, 60, 300):
        text = decimal(value, places, up)
        if value in (0, 1) or Fraction(text) not in (0, 1):
            break
    return text


def scientific(value: int) -> str:
    """A natural number of any size to three digits, cut."""
    digits = str(value)
    return (
        digits if len(digits) <= 4 else f"{digits[0]}.{digits[1:3]}e{len(digits) - 1}"
    )


def units(allowed: float) -> str:
    """Of work, to two digits, rounded up."""
    return f"{Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(allowed):g}"


def listed(
    entries: Sequence, write: Callable[..., str] = str, separator: str = ", "
) -> str:
    """The entries; of a list longer than 400 characters, the first eight, how many there are, and the SHA-256 of all
    (separated in the same way)."""
    if len(entries) <= LONG:
        text = separator.join(map(write, entries))
        if len(text) <= LONG:
            return text
    digest, first = sha256(), [write(e) for e in entries[:FIRST]]
    for start in range(0, len(entries), 4_096):
        digest.update(
            (
                separator * (start > 0)
                + separator.join(map(write, entries[start : start + 4_096]))
            ).encode()
        )
    return f"{separator.join(first)}{separator}... ({len(entries)} in all, sha256 {digest.hexdigest()})"


def runs(entries: Sequence[str]) -> list[str]:
    """Equal neighbours as one: `a`, `a`, `a`, `b` are `a^3`, `b`."""
    found: list[list] = []
    for text in entries:
        if found and found[-1][0] == text:
            found[-1][1] += 1
        else:
            found.append([text, 1])
    return [text if times == 1 else f"{text}^{times}" for text, times in found]


def quoted(text: str) -> str:
    """A text of the file between quotes, which nothing in it can close; in ASCII."""
    return json.dumps(text).replace("\x7f", "\\u007f")


def name(text: str, vocabulary: frozenset[str]) -> str | None:
    """A name as it is printed, where it is short and can't be read as anything else; between quotes, where it begins
    with a digit. Others are not printed at all: their node's number is."""
    if len(text) > NAME or not PRINTED.fullmatch(text):
        return None
    first = re.split(r"[.@-]", text)[0]
    if READS_AS_MORE.fullmatch(first) or text in vocabulary:
        return None
    return f"'{text}'" if text[0].isdigit() or "-" in text else text
