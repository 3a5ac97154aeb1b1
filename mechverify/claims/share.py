"""Claims about the share of the inputs on which a condition holds."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from mechverify.claims.box import Box, corners
from mechverify.claims.captured import free_name, model_of, no_model, same_inputs
from mechverify.claims.conditions import conjunction, entries, guard
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError, here
from mechverify.claims.expressions import Expressions
from mechverify.claims.model import Entry, Site
from mechverify.claims.numbers import number
from mechverify.claims.samples import samples
from mechverify.claims.showing import Shown, of_all, said
from mechverify.claims.unions import disjoint
from mechverify.graph.float32 import opened

WITHIN = Fraction(1, 10_000)  # of a box: how far apart bounds of its share may be


@dataclass(frozen=True, init=False, repr=False)
class Share(Shown):
    """On at least a share `at_least` of the inputs `over`, the condition holds: on entries of a captured model's sites
    and inputs, as conditions of Bounds are, or one whose relations of real values are all strict.

    A share of token sequences is counted; of a box, it is its volume, or the mass that its `distribution` gives it; of
    a box with tokens, the mean over all sequences. `at_least` is as in Accuracy, and so is `given`, on tokens alone,
    also beside a box; without a threshold, bounds of a share of a box are sought until they are `within` that of each
    other. Raises ClaimError.
    """

    output: Site
    over: Box | Tokens
    at_least: Fraction | None
    position: None
    strict: bool
    within: Fraction
    given: list[list]
    said: str

    def __init__(
        self,
        condition,
        *,
        over: Box | Tokens,
        at_least=None,
        within: Any = WITHIN,
        given=(),
    ):
        object.__setattr__(self, "said", said(condition))
        condition, (box, sequences) = conjunction("condition", condition), corners(over)
        if any(b.inner is not None for b in box.each):
            what = "a corner of the box is no float64, and of another box the share is another one"
            raise ClaimError(
                f"{here()}{what}: give corners that are, as float('0.1') is"
            )
        asked, own = entries(given), set(sequences or ())
        if box.low and any(
            sequences is None or c.atoms(Entry) or c.free_symbols - own for c in asked
        ):
            what = (
                "given= of a share is for tokens alone, of a box it has no known mass"
            )
            raise ClaimError(
                f"{here()}{what}: put it into the claim, as Share(And(..), ..) or Share(Implies(..), ..)"
            )
        model = model_of([condition]) or no_model(box, sequences)
        same_inputs(model, box, sequences)
        captured = model.captured
        graph, sites = opened(captured.graph), dict(captured.sites)
        graph.values = (0,) if sequences is None else sequences.values
        compiler = Expressions(graph, captured.sites, box, sequences)
        node, strict = compiler.condition(condition)
        compiler.finish(here())
        name = free_name(sites, "claimed")
        sites[name] = node
        changed = replace(model, captured=replace(captured, graph=graph, sites=sites))
        set_ = object.__setattr__
        set_(self, "output", Site(changed.compared_at(*samples(box, sequences)), name))
        set_(self, "over", disjoint(over) if isinstance(over, Box) else over)
        set_(self, "at_least", a_share(at_least))
        set_(self, "position", None)
        set_(self, "strict", strict)
        set_(self, "within", number(within))
        conditions = [] if sequences is None else [*asked, *sequences.given]
        set_(
            self,
            "given",
            guard(conditions, sequences) if sequences is not None else [],
        )

    def described(self) -> list[tuple[str, str]]:
        of = (
            f"{self.over.size:,} inputs"
            if isinstance(self.over, Tokens)
            else _boxes(self.over)
        )
        return [
            ("claim", f"Share: {self.said}"),
            ("on", f"{of_all(self.at_least)} {of}"),
            ("model", self.output.model.source),
        ]


def a_share(value) -> Fraction | None:
    if value is None or (isinstance(value, str) and value == "best"):
        return None
    try:
        share = number(value)
    except ValueError as error:
        raise ClaimError(f"at_least: {error}; use 0.999, 999/1000 or best") from None
    if not 0 <= share <= 1:
        raise ClaimError(f"at_least={value!r} must lie between 0 and 1")
    return share


def _boxes(over: Box) -> str:
    return f"a union of {len(over.boxes):,} boxes" if over.boxes else "a box"
