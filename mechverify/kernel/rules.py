"""The rules that a leaf of a proof may name, by kind of claim, and the family of each: loaded when a proof names it.

A rule is `check(job, part, witness)`: bounds of a part of the domain that hold whatever the witness says, or a
rejection. One that works on many parts side by side takes lists; one that holds proofs takes what proves them.
"""

from collections.abc import Callable
from typing import NamedTuple

from mechverify.kernel.core.loading import late


class Rule(NamedTuple):
    module: str  # in a family's folder
    function: str = "check"
    together: bool = False  # of lists of parts and witnesses
    nested: bool = False  # takes `united`, and tells which rules its own proofs used

    @property
    def check(self) -> Callable:
        return getattr(late(self.module), self.function)


_COUNTING = {
    name: Rule(f"replay.{name}") for name in ("enumerate", "counterexample", "open")
}
RULES: dict[str, dict[str, Rule]] = {
    "accuracy": {
        **_COUNTING,
        **{
            n: Rule(f"{n}.rule")
            for n in ("fold", "compact", "ratios", "nested", "mixtures")
        },
    },
    "share": {
        **_COUNTING,
        "relaxation": Rule("relaxation.shares", together=True),
        "faces": Rule("relaxation.cones", nested=True),
        "differences": Rule("differences.rule", nested=True),
        "union": Rule("core.unions", nested=True),
    },
    "bounds": {
        "point": Rule("replay.points", "point"),
        "solver": Rule("replay.points", "solver"),
        "relaxation": Rule("relaxation.rule", together=True),
        "cut": Rule("cut.rule", nested=True),
        "differences": Rule("differences.rule", nested=True),
        "union": Rule("core.unions", nested=True),
        "ratios": Rule("ratios.ranges"),
        "nested": Rule("nested.patterns"),
    },
}
OLD = {
    "relaxation": ("interval", "linear", "farkas"),
    "open": (),
    "ratios": (),
    "nested": (),
    "mixtures": (),
}  # names before format version 5


def rules(kind: str, old: bool) -> dict[str, Rule]:
    """Those of a kind of claim, by the names that a file uses."""
    return {
        name: rule
        for now, rule in RULES[kind].items()
        for name in (OLD.get(now, [now]) if old else [now])
    }
