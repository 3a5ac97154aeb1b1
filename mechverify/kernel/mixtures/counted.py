"""How many inputs of a cell are lost to a rival: counts of inputs where a linear form of the mixture is not positive.

Lemmas X7, X9 (docs/soundness/mixtures.md).
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mechverify.kernel.core.meter import reserve
from mechverify.kernel.counting import recursion
from mechverify.kernel.counting.automaton import Layer, towards
from mechverify.kernel.counting.nonpositive import count_nonpositive
from mechverify.kernel.mixtures.columns import Columns
from mechverify.kernel.ratios.linear import Expansion, Linear

if TYPE_CHECKING:
    from mechverify.kernel.mixtures.rule import Forms, Group, Leaf


class Counted:
    """Of one cell of a group. A rival is named by its place among the others of the cell."""

    def __init__(self, group: "Group", cell: int):
        self.group, self.cell, self.ar = group, cell, group.ar

    @cached_property
    def layers(self) -> list[Layer]:
        """Of the automaton of the cell's inputs."""
        partition, row = self.group.partition, self.group.row
        index = int(self.group.classes[self.cell])
        layers = towards(self.ar, partition.automaton, index)
        return recursion.pin(layers, partition.pin, row.query)

    def below(
        self,
        leaf: "Leaf",
        forms: "Forms",
        rival: int,
    ) -> Linear:
        """Terms whose sum is not positive on any input of the leaf that is lost to the rival, by the leaf's forms; of a
        winner, on any where it doesn't win."""
        slopes, constants = (a[None, rival : rival + 1] for a in forms)
        if leaf.multipliers is not None:
            leaf = leaf._replace(multipliers=leaf.multipliers[rival : rival + 1])
        lead, trial, _ = self.group.lead([leaf], (slopes, constants))
        box = Columns(self.group.row, self.group.classes[[self.cell]])
        return Expansion(box, lead, trial).linear(np.arange(1))

    def lost(
        self,
        form: Linear,
        step: int,
    ) -> int:
        """At most so many inputs have a sum that is not positive."""
        row, terms = self.group.row, form.terms
        reserve(len(self.layers), row.vocab)
        integers = np.zeros((len(self.layers), row.vocab), np.int64)
        least = self.ar.lower(terms)[..., 0]
        grid = self.ar.to_grid(least, terms.exponent, step, upwards=False)
        integers[:, row.tokens] = grid.T
        return count_nonpositive(self.ar, self.layers, integers, upwards=True)
