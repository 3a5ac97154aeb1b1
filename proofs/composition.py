"""A network composes permutations of five, by which margin, and how far its logits know a product's coset of A5 at all.

mechverify prove proofs/composition.py                          # right on all 14,400 pairs
mechverify prove proofs/composition.py -p margin=best           # and the least lead
mechverify prove proofs/composition.py -p what=coset -p at_least=best    # each coset's logits on average
mechverify prove proofs/composition.py -p what=coset -p of=largest       # and their largest
"""

from typing import Literal

import torch
from torch import nn

from mechverify import Accuracy, capture, lookup, pair_mlp, tokens
from mechverify.graph.adapters import load
from toy_models.composition import ODD, TABLE, WEIGHTS


class Cosets(nn.Module):
    """Of ids [batch, 2], the mean or the largest logit of all even and of all odd permutations [batch, 2]."""

    def __init__(self, network: nn.Module, of: str):
        super().__init__()
        self.network, self.of, odd = network, of, torch.tensor(ODD)
        self.even, self.odd = ((odd == sign).nonzero()[:, 0] for sign in (0, 1))

    def forward(self, ids):
        logits = self.network(ids)
        both = logits[:, self.even], logits[:, self.odd]
        return torch.stack([y.mean(1) if self.of == "mean" else y.amax(1) for y in both], 1)


def claim(weights=str(WEIGHTS), what: Literal["product", "coset"] = "product", of: Literal["mean", "largest"] = "mean",
          at_least="1", margin="0"):  # fmt: skip
    network, n = pair_mlp(weights), len(ODD)
    x = tokens("x", length=2, vocab=n)
    logits, answers = network.logits, TABLE
    if what == "coset":
        module = Cosets(load(weights).module.double(), of).eval()
        logits = capture(module, torch.zeros(1, 2, dtype=torch.long), vocab=n)["output"]
        answers = [ODD[product] for product in TABLE]
    return Accuracy(logits, equals=lookup(answers, n * x[0] + x[1]), over=x, at_least=at_least, margin=margin)
