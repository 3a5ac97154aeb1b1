"""Two models of the same inputs that agree: one and another, or one before and after its inputs are moved.

A claim of this kind is a Share or Bounds of a module that runs both side by side (graph/interventions.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from mechverify.claims.bounds import Bounds
from mechverify.claims.box import Box
from mechverify.claims.domain import Tokens
from mechverify.claims.errors import ClaimError
from mechverify.claims.model import CapturedModel, capture
from mechverify.claims.numbers import number
from mechverify.claims.share import WITHIN, Share
from mechverify.claims.transformers import LoadedTransformer
from mechverify.graph import interventions

ARGMAX = "argmax"

Module = nn.Module | LoadedTransformer
Agrees = Any  # "argmax", or a number: by how much no entry differs more


class Same(Share):
    """On at least a share `at_least` of the inputs `over` (a box's share is its volume, or mass), two models of the
    same inputs agree: as of Circuits.agree; `within` as in Share. Raises ClaimError."""

    def __init__(
        self, model: Module, other: Module, *, over: Tokens | Box, agrees: Agrees = ARGMAX, at_least: Any = 1,
        row: int | None = None, given: Any = (), within: Any = WITHIN,
    ):  # fmt: skip
        twins = interventions.Twins(network_of(model), network_of(other), row)
        captured = captured_together(
            twins, over, f"{called(model)} and {called(other)}"
        )
        super().__init__(
            condition_of(captured, agrees), over=over, at_least=at_least, given=given, within=within
        )  # fmt: skip


def differ(
    model: Module, other: Module, *, over: Tokens | Box, at_most: Any = None, row: int | None = None, given: Any = (),
) -> Bounds:  # fmt: skip
    """No entry of the outputs of two models of the same inputs differs by more than `at_most` (None: the least that can
    be proved), anywhere `over`. Nearly equal models are bounded jointly. Raises ClaimError."""
    twins = interventions.Twins(network_of(model), network_of(other), row)
    captured = captured_together(twins, over, f"{called(model)} and {called(other)}")
    return Bounds(
        captured["output.difference"], over=over, at_most=at_most, given=given
    )


class Equivariant(Share):
    """On at least a share `at_least` of the inputs, the model's output for moved tokens agrees with its moved output.

    `tokens` moves them: for each token id, another; or `positions`: the token at i is then the one that was at
    positions[i] (a reversal, or another order that is a slice); or both. `outputs`: for each entry
    of the output for moved tokens, the entry for the tokens themselves that it is to agree with (None: the same, which
    makes the model invariant). Raises ClaimError.
    """

    def __init__(
        self, model: Module, *, over: Tokens, tokens: Sequence[int] | None = None,
        positions: Sequence[int] | None = None, outputs: Sequence[int] | None = None, agrees: Agrees = ARGMAX,
        at_least: Any = 1, row: int | None = None, given: Any = (),
    ):  # fmt: skip
        if tokens is None and positions is None:
            raise ClaimError(
                "Equivariant needs tokens=, where each id is moved to, or positions=, or both"
            )
        moved = _Moved(
            _map("tokens", tokens, len(over.values)),
            _permutation("positions", positions, len(over)),
        )
        for i, ids in enumerate(over.allowed):
            if tokens is not None and not {tokens[t] for t in ids} <= set(
                range(len(over.values))
            ):
                raise ClaimError(
                    f"tokens= moves ids of position {i} out of the vocabulary"
                )
        network = network_of(model)
        after = None if outputs is None else torch.tensor([*outputs])
        twins = interventions.Twins(network, network, row, moved, after)
        captured = captured_together(twins, over, f"{called(model)} before and after")
        super().__init__(
            condition_of(captured, agrees), over=over, at_least=at_least, given=given
        )


class _Moved(nn.Module):
    def __init__(self, ids: Tensor | None, positions: Tensor | None):
        super().__init__()
        self.register_buffer("ids", ids)
        self.register_buffer("positions", positions)

    ids: Tensor | None
    positions: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.positions is None else x[:, self.positions]
        return x if self.ids is None else self.ids[x]


def condition_of(model: CapturedModel, agrees: Agrees) -> sympy.Basic:
    if isinstance(agrees, str) and agrees == ARGMAX:
        if "output.agreement" not in model.sites:
            raise ClaimError(
                'agrees="argmax" needs an output of two entries or more: give a number'
            )
        return sympy.Gt(model["output.agreement"][()], 0, evaluate=False)
    try:
        eps = number(agrees)
    except ValueError as error:
        raise ClaimError(
            f'agrees: {error}; "argmax", or by how much entries differ at most'
        ) from None
    if eps < 0:
        raise ClaimError(f"agrees={agrees!r} is negative")
    exact = sympy.Rational(eps.numerator, eps.denominator)
    return sympy.Le(model["output.difference"][()], exact, evaluate=False)


def captured_together(twins: nn.Module, over: Tokens | Box, name: str) -> CapturedModel:
    box, sequences = (over, over.tokens) if isinstance(over, Box) else (None, over)
    dtype = next(
        (p.dtype for p in twins.parameters() if p.is_floating_point()), torch.float64
    )
    reals = [] if box is None else [torch.as_tensor(a)[None].to(dtype) for a in box.low]
    ids = [] if sequences is None else [example_of(sequences)]
    vocab = None if sequences is None else len(sequences.values)
    return replace(capture(twins.eval(), *ids, *reals, vocab=vocab), source=name)


def network_of(model: Module) -> nn.Module:
    network = model.module if isinstance(model, LoadedTransformer) else model
    if not isinstance(network, nn.Module):
        raise ClaimError(
            f"{type(model).__name__} is no torch module, and no load(weights)"
        )
    if any(m.training for m in network.modules()):
        raise ClaimError(f"{called(model)} is in training mode: call .eval() first")
    return network


def called(model: Module) -> str:
    return model.name if isinstance(model, LoadedTransformer) else type(model).__name__


def example_of(over: Tokens) -> Tensor:
    """An input, as an example: [1, length]."""
    return torch.tensor([[ids[0] for ids in over.allowed]])


def _map(name: str, values: Sequence[int] | None, size: int) -> Tensor | None:
    if values is None:
        return None
    if len(values) != size:
        raise ClaimError(f"{name}= lists {len(values)} ids; the vocabulary has {size}")
    return torch.tensor([*values])


def _permutation(name: str, values: Sequence[int] | None, size: int) -> Tensor | None:
    if values is None:
        return None
    if sorted(values) != list(range(size)):
        raise ClaimError(
            f"{name}={list(values)!r:.60} is no permutation of 0 to {size - 1}"
        )
    return torch.tensor([*values])
