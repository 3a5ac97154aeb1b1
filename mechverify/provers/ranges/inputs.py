"""Inputs that were seen, with the model's values there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from mechverify.certificate.write import Proof

CLEARLY = 1e-9  # a condition's value is not negative, whatever the rounding


class Inputs(NamedTuple):
    """Token ids [inputs, length] and real inputs [inputs, coordinates] in the domain, with the output's values there
    [inputs, entries], and whether it is `clear` that they satisfy the claim's conditions [inputs]."""

    tokens: np.ndarray
    points: np.ndarray
    values: np.ndarray
    clear: np.ndarray

    @staticmethod
    def allowed(
        tokens: np.ndarray,
        points: np.ndarray,
        values: torch.Tensor,
        least: torch.Tensor,
    ) -> Inputs:
        """Those that satisfy the conditions, whose least value is given, as far as torch can see."""
        margin = least.numpy()
        return Inputs(tokens, points, values.detach().numpy(), margin > CLEARLY).at(
            margin >= 0
        )

    @staticmethod
    def none() -> Inputs:
        return Inputs(
            np.zeros((0, 0), np.int64),
            np.zeros((0, 0)),
            np.zeros((0, 0)),
            np.zeros(0, bool),
        )

    def at(self, rows: np.ndarray | list[int] | slice) -> Inputs:
        return Inputs(*(a[rows] for a in self))

    def proof(self) -> Proof:
        rows = sorted(
            {
                (tuple(t), tuple(v.hex() for v in p))
                for t, p in zip(self.tokens.tolist(), self.points.tolist(), strict=True)
            }
        )
        return {"rule": "point", "inputs": [[list(t), list(p)] for t, p in rows]}
