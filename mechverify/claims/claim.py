"""Claims: a model, a domain, a mechanism, and what must hold between them."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import sympy

from mechverify.claims.box import Box, corners
from mechverify.claims.conditions import add_conditions
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.language import compile_mechanism
from mechverify.claims.model import CapturedModel, Model, Site
from mechverify.kernel.architectures import ARCHITECTURES
from mechverify.kernel.graph import Graph


@dataclass(frozen=True, init=False)
class Accuracy:
    """On at least a share `at_least` of the inputs `over`, the decoded `output` equals the mechanism `equals`.

    The decoded output is the index of the strictly largest entry: a tie is wrong, and so is a mechanism
    value that is no index. `at_least` is a number from 0 to 1, best given as text ("0.999", "999/1000"),
    which is exact; None (or "best") asks for the best bounds that can be proved. Raises ClaimError.
    """

    output: Site
    equals: sympy.Basic
    over: Tokens
    at_least: Fraction | None
    position: int
    rows: list[list]

    def __init__(self, output: Site, *, equals, over: Tokens, at_least=None):
        if not isinstance(output, Site) or not isinstance(over, Tokens):
            raise ClaimError("Accuracy needs a model's site, such as model.logits[-1], and over=tokens(...)")
        if isinstance(output.model, CapturedModel):
            raise ClaimError("Accuracy is for transformer(weights) so far; for a captured module, ask for Bounds")
        if output.position is None:
            raise ClaimError(f"say at which position {output.name} is read, as in {output.name}[-1]")
        model, length = output.model, len(over)
        position = output.position + length if output.position < 0 else output.position
        if not 0 <= position < length:
            raise ClaimError(f"{output.name}[{output.position}]: the sequences have length {length}")
        if length > model.n_ctx or len(over.values) > model.d_vocab:
            raise ClaimError(
                f"sequences of length {length} over {len(over.values)} tokens don't fit {model.source} "
                f"({model.n_ctx} positions, {model.d_vocab} tokens)"
            )
        vectors = _vector_sites(model, length)
        if output.name not in vectors:
            raise ClaimError(f"{output.name} is not one vector a position; read one of: {', '.join(vectors)}")
        if isinstance(equals, str):
            raise ClaimError(f"equals={equals!r} is text; write the expression itself, with the tokens of `over`")
        set_ = object.__setattr__
        set_(self, "output", output)
        set_(self, "equals", sympy.sympify(equals))
        set_(self, "over", over)
        set_(self, "at_least", _share(at_least))
        set_(self, "position", position)
        set_(self, "rows", compile_mechanism(self.equals, over))


@dataclass(frozen=True, init=False)
class Bounds:
    """Every entry of `site` is at least `at_least` and at most `at_most`, on every input `over`: a box or ball of real
    inputs, a product of token sets, or both.

    `where` lists conditions on the inputs, in sympy (`x[0] >= x[1]`, x being the domain): of other inputs nothing is
    said. `cases` lists conditions that the proof tells apart first: your own case split.

    Thresholds are numbers for all entries or one for each (nested lists as the site's shape), taken exactly; without
    any, the question is for the tightest bounds that can be proved. Raises ClaimError.
    """

    output: Site
    over: Box
    at_least: list[Fraction] | None
    at_most: list[Fraction] | None
    position: int | None
    where: tuple[str, ...]
    cases: tuple[str, ...]

    def __init__(self, site: Site, *, over: Box | Tokens, at_least=None, at_most=None, where=(), cases=()):
        if not isinstance(site, Site) or not isinstance(site.model, CapturedModel):
            raise ClaimError('Bounds needs a site of a captured module, such as capture(module, example)["output"]')
        shape, captured = site.model.shape(site.name), site.model.captured
        position = site.position
        if position is not None:
            if not shape or not -shape[0] <= position < shape[0]:
                raise ClaimError(f"{site.name}[{position}]: its shape is {shape}")
            position, shape = position % shape[0], shape[1:]
        box, tokens = corners(over)
        shapes = tuple(a.shape for a in box.low)
        if shapes != captured.inputs:
            need = f"real inputs of shapes {captured.inputs}"
            raise ClaimError(f"{site.model.source} reads {need}, the domain has {shapes}")
        length = 0 if tokens is None else len(tokens)
        if length != captured.tokens_length or (tokens and len(tokens.values) != captured.vocab):
            need = f"{captured.tokens_length} tokens below {captured.vocab}"
            raise ClaimError(f"{site.model.source} reads {need}; the domain has {length}: over=tokens(...)")
        site, (where, cases) = _with_conditions(site, box, tokens, where, cases)
        set_ = object.__setattr__
        set_(self, "where", where)
        set_(self, "cases", cases)
        set_(self, "output", site)
        set_(self, "over", replace(box, tokens=tokens))
        set_(self, "at_least", _numbers("at_least", at_least, shape))
        set_(self, "at_most", _numbers("at_most", at_most, shape))
        set_(self, "position", position)


def _with_conditions(site: Site, box: Box, tokens: Tokens | None, *conditions) -> tuple[Site, list[tuple[str, ...]]]:
    """The site in a model whose graph has the conditions as sites of their own, and these sites' names."""
    groups = [list(c) if isinstance(c, Iterable) else [c] for c in conditions]
    if not any(groups):
        return site, [() for _ in groups]
    captured = site.model.captured
    graph, names = copy.deepcopy(captured.graph), []
    sites = dict(captured.sites)
    for group in groups:
        found = add_conditions(graph, group, box, tokens)
        names.append(tuple(found))
        sites |= found
    model = replace(site.model, captured=replace(captured, graph=graph, sites=sites))
    return replace(site, model=model), names


def _numbers(name: str, value, shape: tuple[int, ...]) -> list[Fraction] | None:
    if value is None:
        return None
    entries = np.array(value.tolist() if hasattr(value, "tolist") else value, dtype=object)
    if entries.shape not in ((), shape):
        raise ClaimError(f"{name} has shape {entries.shape}; give one number, or one for each entry of {shape}")
    try:
        return [Fraction(v) if isinstance(v, float) else Fraction(str(v))
                for v in np.broadcast_to(entries, shape).ravel()]  # fmt: skip
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ClaimError(f"{name} holds something that is not a finite number: {value!r:.80}") from None


def _vector_sites(model: Model, length: int) -> list[str]:
    """Sites of shape [positions, width]: their rows can be decoded."""
    graph = Graph(length, tuple(range(model.d_vocab)))
    sites = ARCHITECTURES[model.architecture](graph, model.tensors)
    shapes = {name: graph.nodes[node].shape for name, node in sites.items()}
    return [name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == length]


def _share(value) -> Fraction | None:
    if value is None or value == "best":
        return None
    try:
        share = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ClaimError(f"at_least={value!r} is not a number; use 0.999, 999/1000 or best") from None
    if not 0 <= share <= 1:
        raise ClaimError(f"at_least={value!r} must lie between 0 and 1")
    return share
