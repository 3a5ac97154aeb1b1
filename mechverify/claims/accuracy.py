"""Claims about the share of the inputs on which the decoded output is what the mechanism says."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import sympy

from mechverify.claims.box import Box
from mechverify.claims.captured import compiled, model_of, row_of, same_inputs
from mechverify.claims.conditions import entries, guard
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError, here
from mechverify.claims.mechanisms import compile_mechanism
from mechverify.claims.model import CapturedModel, Model, Site
from mechverify.claims.numbers import number
from mechverify.claims.samples import samples
from mechverify.claims.share import Share, a_share
from mechverify.claims.showing import Shown, of_all
from mechverify.kernel.core.architectures import ARCHITECTURES
from mechverify.kernel.core.graph import Graph


@dataclass(frozen=True, init=False, repr=False)
class Accuracy(Shown):
    """On at least a share `at_least` of the inputs `over`, the decoded `output` equals the mechanism `equals`.

    `output` is a site that is a vector, or a row of one; of a captured module, a list of entries or of expressions of
    entries as well: [0, model["output"][-1, 0]] decodes to 1 where that entry is positive. The decoded output is the
    index of the entry that exceeds every other by more than `margin`: a tie is wrong, and so is a mechanism value that
    is no index. `margin="best"` asks for the largest one that can be proved on the share `at_least`: of the right
    inputs, say, where that is how many there are. `at_least` is a number from 0 to 1, best given as text ("0.999",
    "999/1000"), which is exact (a float is the number that it holds); None (or "best") asks for the best bounds that
    can be proved. `given` lists conditions on tokens: the inputs `over` that satisfy them are all that the claim is
    about. Raises ClaimError.
    """

    output: Site
    equals: sympy.Basic
    over: Tokens
    at_least: Fraction | None
    position: int | None
    rows: list[list]
    margin: Fraction | None
    given: list[list]

    def __init__(
        self, output, *, equals, over: Tokens, at_least=None, margin: Any = 0, given=()
    ):
        if (
            isinstance(output, Site)
            and not isinstance(output.model, CapturedModel)
            and isinstance(over, Tokens)
        ):
            position = _known_vector(output, output.model, over)
        else:
            output, position = _captured_vector(output, over)
        if isinstance(equals, str):
            raise ClaimError(
                f"equals={equals!r} is text; write the expression itself, with the tokens of `over`"
            )
        set_ = object.__setattr__
        set_(self, "output", output)
        set_(self, "equals", sympy.sympify(equals))
        set_(self, "over", over)
        set_(self, "at_least", a_share(at_least))
        set_(self, "margin", _margin(margin))
        set_(self, "given", guard([*entries(given), *over.given], over))
        if self.margin is None and not self.at_least:
            raise ClaimError(
                'margin="best" asks for a margin on a share of the inputs: say at_least=1, or the share'
            )
        set_(self, "position", position)
        set_(self, "rows", compile_mechanism(self.equals, over))

    def described(self) -> list[tuple[str, str]]:
        margin = (
            "" if self.margin == 0 else f", by more than {self.margin or 'the best'}"
        )
        output = f"{self.output.name}{'' if self.position is None else [self.position]}"
        return [
            ("claim", f"Accuracy: argmax {output} = {self.equals}{margin}"),
            ("on", f"{of_all(self.at_least)} {self.over.size:,} inputs"),
            ("model", self.output.model.source),
        ]

    def by_leads(self) -> "Share":
        """The same claim of a captured module, as a Share: the mechanism's value is an output, and leads
        every other by more than the margin. Raises ClaimError where the margin is asked for."""
        if self.margin is None:
            raise ClaimError(
                f'{here()}margin="best" is for semantics real: state the margin'
            )
        output: Any = Site(self.output.model, self.output.name, self.position)
        last, m = output.shape[0] - 1, self.equals
        lead = output[sympy.Max(0, sympy.Min(m, last))]
        equal: Any = sympy.Eq
        leads = [
            sympy.Or(equal(m, t), lead - output[t] > self.margin)
            for t in range(last + 1)
        ]
        right = sympy.And(sympy.Ge(m, 0), sympy.Le(m, last), *leads)
        share = Share(right, over=self.over, at_least=self.at_least)
        object.__setattr__(share, "given", self.given)
        return share

    def changed(self, **fields: Any) -> "Accuracy":
        """The same claim with another margin, or threshold."""
        changed = copy.copy(self)
        for name, value in fields.items():
            object.__setattr__(changed, name, value)
        return changed


def _known_vector(output: Site, model: Model, over: Tokens) -> int | None:
    """The position at which a known architecture's output is read."""
    length, position = len(over), output.position
    if position is not None:
        position = position + length if position < 0 else position
        if not 0 <= position < length:
            raise ClaimError(
                f"{output.name}[{output.position}]: the sequences have length {length}"
            )
    if length > model.n_ctx or len(over.values) > model.d_vocab:
        raise ClaimError(
            f"sequences of length {length} over {len(over.values)} tokens don't fit {model.source} "
            f"({model.n_ctx} positions, {model.d_vocab} tokens)"
        )
    rows, alone = _vector_sites(model, length)
    if output.name not in (alone if position is None else rows):
        if position is None and output.name in rows:
            raise ClaimError(
                f"say at which position {output.name} is read, as in {output.name}[-1]"
            )
        ones = [*(f"{name}[-1]" for name in rows), *alone]
        raise ClaimError(
            f"{output.name} is not one vector of outputs; read one of: {', '.join(ones)}"
        )
    return position


def _vector_sites(model: Model, length: int) -> tuple[list[str], list[str]]:
    """Sites of shape [positions, width], whose rows can be decoded, and those of shape [width]."""
    graph = Graph(length, tuple(range(model.d_vocab)))
    sites = ARCHITECTURES[model.architecture](graph, model.tensors)
    shapes = {name: graph.nodes[node].shape for name, node in sites.items()}
    rows = [
        name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == length
    ]
    return rows, [
        name
        for name, node in sites.items()
        if len(shapes[name]) == 1 and graph.nodes[node].kind == "real"
    ]


def _captured_vector(output, over: Tokens) -> tuple[Site, int | None]:
    """The site, in a captured model compared with its module on the claim's domain, and the row that is read."""
    expressions = (
        []
        if isinstance(output, Site)
        else entries(output)
        if isinstance(output, Iterable)
        else []
    )
    model = output.model if isinstance(output, Site) else model_of(expressions)
    if not isinstance(model, CapturedModel) or not isinstance(over, Tokens):
        raise ClaimError('Accuracy needs a model\'s site, such as model.logits[-1] of transformer(weights) or '
                         'model["output"][-1] of capture(module, example), and over=tokens(...)')  # fmt: skip
    if shapes := model.captured.inputs:
        what = f"{model.source} reads real inputs, of shapes {shapes}; Accuracy counts sequences of tokens alone"
        raise ClaimError(f"{here()}{what}: ask for Bounds or Holds")
    same_inputs(model, Box((), ()), over)
    site, position = None, None
    if isinstance(output, Site):
        site, position, shape = row_of(output)
        name = output.name if position is None else f"{output.name}[{output.position}]"
        if len(shape) != 1:
            row = (
                f"; say which row is read, as in {name}[-1]"
                if len(shape) == 2 and position is None
                else ""
            )
            raise ClaimError(
                f"{here()}{name} has shape {shape}, which is not one vector of outputs{row}"
            )
    if (
        site is not None
        and model.captured.graph.nodes[model.captured.sites[site.name]].kind != "real"
    ):
        raise ClaimError(f"{here()}{site.name} are ids, not a vector of outputs")
    site, _, _ = compiled(model, site, expressions, Box((), ()), over, [[], []], [])
    return replace(
        site, model=site.captured.compared_at(*samples(Box((), ()), over))
    ), position


def _margin(value) -> Fraction | None:
    if isinstance(value, str) and value == "best":
        return None
    try:
        margin = number(value)
    except ValueError as error:
        raise ClaimError(f"margin: {error}; use 0.25, 1/4 or best") from None
    if margin < 0:
        raise ClaimError(f"margin={value!r} is negative")
    return margin
