"""The captured model that a claim speaks of, with what the claim says as further sites of its graph."""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

import numpy as np
import sympy
from safetensors.numpy import save

from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError, here
from mechverify.claims.expressions import Expressions
from mechverify.claims.model import CapturedModel, Entry, Site
from mechverify.graph.capture import Captured
from mechverify.graph.float32 import opened
from mechverify.kernel.core.graph import Graph, entries


@dataclass(frozen=True)
class Lemma:
    """A site and a mechanism, both by the names of sites, and by how much they differ at most; None: as proved."""

    site: str
    mechanism: str
    eps: Fraction | None


def model_of(expressions: list) -> CapturedModel | None:
    """The model whose entries they speak of."""
    entries = [e for x in expressions for e in sympy.sympify(x).atoms(Entry)]
    if len({id(e.model) for e in entries}) > 1:
        raise ClaimError("a claim speaks of entries of one model; these are of several")
    return entries[0].model if entries else None


def no_model(box: Box, tokens: Tokens | None) -> CapturedModel:
    """For claims that speak of the domain alone."""
    length, values = (0, (0,)) if tokens is None else (len(tokens), tokens.values)
    shapes = tuple(a.shape for a in box.low)
    captured = Captured(
        Graph(length, values),
        {},
        {},
        shapes,
        length,
        len(values) if tokens else 0,
        0,
        0.0,
    )
    return CapturedModel(captured, "no model", save({}))


def same_inputs(model: CapturedModel, box: Box, tokens: Tokens | None) -> None:
    """The domain has the inputs that the model reads."""
    captured, shapes = model.captured, tuple(a.shape for a in box.low)
    if shapes != captured.inputs:
        need = (
            f"real inputs of shapes {captured.inputs}"
            if captured.inputs
            else "no real inputs"
        )
        hint = "; give one box for each input, in its shape without the batch axis"
        hint = hint if captured.inputs else ": over=tokens(...)"
        raise ClaimError(
            f"{model.source} reads {need}, the domain has inputs of shapes {shapes}{hint}"
        )
    length, vocab = (0, 0) if tokens is None else (len(tokens), len(tokens.values))
    if (length, vocab) != (captured.tokens_length, captured.vocab):
        need = f"{captured.tokens_length} tokens of {captured.vocab}"
        hint = f"tokens('x', length={captured.tokens_length}, vocab={captured.vocab})"
        raise ClaimError(
            f"{model.source} reads {need}, the domain has {length} of {vocab}: {hint}"
        )


def row_of(site: Site) -> tuple[Site, int | None, tuple[int, ...]]:
    """A captured model's site, which row of it is meant, and the shape of that."""
    shape, position = site.captured.shape(site.name), site.position
    if position is None:
        return site, None, shape
    if not shape or not -shape[0] <= position < shape[0]:
        name = f"{site.name}[{position}]"
        raise ClaimError(
            f"{here()}{name}: the site has shape {shape}; indices count from 0"
        )
    return site, position % shape[0], shape[1:]


def compiled(
    model: CapturedModel, site: Site | None, expressions: list, box: Box, tokens: Tokens | None, groups: list[list],
    using: list,
) -> tuple[Site, list[tuple[str, ...]], tuple[Lemma, ...]]:  # fmt: skip
    """The site that is claimed about, in a model whose graph has the expressions, conditions and mechanisms as sites of
    their own; the conditions' names; and the lemmas."""
    if site is not None and not any(groups) and not using:
        return site, [() for _ in groups], ()
    captured = model.captured
    graph, sites, names = opened(captured.graph), dict(captured.sites), []
    graph.values = (0,) if tokens is None else tokens.values
    compiler = Expressions(graph, captured.sites, box, tokens)
    for kind, group in zip(("given", "case"), groups, strict=True):
        found = {
            free_name(sites, kind, i): n
            for i, n in enumerate(dict.fromkeys(compiler.conditions(group)))
        }
        names.append(tuple(found))
        sites |= found
    nodes, lemmas = compiler.values(expressions), []
    for i, lemma in enumerate(using):
        about = sites[lemma.actual.name] = _reshaped(graph, sites[lemma.actual.name])
        shape = graph.nodes[about].shape
        rows = [
            graph.add("view", n, attr=((1,), 0, (0,)))
            for n in compiler.values(lemma.expected)
        ]
        steps = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
        mechanism = free_name(sites, "lemma", i)
        sites[mechanism] = graph.add(
            "view", graph.add("concat", *rows, attr=0), attr=(shape, 0, steps)
        )
        lemmas.append(Lemma(lemma.actual.name, mechanism, lemma.eps))
    compiler.finish(here())
    if site is None and not nodes:
        raise ClaimError("nothing is claimed: give an expression")
    name = free_name(sites, "claimed") if site is None else site.name
    if site is None:
        rows = [graph.add("view", node, attr=((1,), 0, (0,))) for node in nodes]
        sites[name] = graph.add("concat", *rows, attr=0)
    changed = replace(model, captured=replace(captured, graph=graph, sites=sites))
    return (
        Site(changed, name, None if site is None else site.position),
        names,
        tuple(lemmas),
    )


def _reshaped(graph: Graph, n: int) -> int:
    """The node whose entries a node shows in another shape alone: what the model goes on with."""
    while graph.nodes[n].op == "view":
        (source,) = graph.nodes[n].args
        if not np.array_equal(
            entries(graph.nodes[n].attr).ravel(),
            np.arange(prod(graph.nodes[source].shape)),
        ):
            break
        n = source
    return n


def free_name(sites: dict[str, int], kind: str, number: int | None = None) -> str:
    """A name for what the claim adds to the graph, which the module hasn't given to a value of its own. It says nothing
    of what it names: the kernel reads that off the graph."""
    name = kind if number is None else f"{kind}.{number + 1}"
    while name in sites:
        name = f"claim.{name}"
    return name
