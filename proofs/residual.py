"""A residual MLP adds relu(x) to each feature x with few neurons: while one feature is on, no output moves by more than
eps, whatever of the other neurons is taken away, each by a factor of its own in [least, 1].

mechverify prove proofs/residual.py                              # feature 0 in [0, 1]: the least eps
mechverify prove proofs/residual.py -p least=0.9 -p eps=0.002
mechverify prove proofs/residual.py -p "on=1 2" -p above=0.02    # three features anywhere in [0, 1]
mechverify prove proofs/residual.py -p keep=7 -p eps=0.3         # refuted: neuron 4 is needed as well
"""

import torch
from torch import nn

from mechverify import Bounds, box, capture
from toy_models.residual import FEATURES, NEURONS, shipped


class Ablation(nn.Module):
    """Of features and a factor for each neuron [batch, features + neurons], what the factors change in the output."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, both):
        x, mask = both.tensor_split([FEATURES], dim=1)
        return self.model(x) - self.model(x, mask)


def active(feature: int, above: float) -> list[int]:
    """The neurons that add more than that to an output while the feature is 1 and the others are off."""
    model = shipped()
    added = torch.relu(model.W_E[feature] @ model.W_in)[:, None] * (model.W_out @ model.W_E.T)
    return (added.abs().amax(1) > above).nonzero()[:, 0].tolist()


def claim(feature=0, on="", keep="", least="0", eps="", above="0.1"):
    """`on`: features that may be on as well; `keep`: neurons that stay (by default those that are active)."""
    model = capture(Ablation(shipped()).eval(), torch.zeros(1, FEATURES + NEURONS))
    features = {int(feature), *map(int, str(on).split())}
    kept = {*map(int, str(keep).split())} or {n for f in features for n in active(f, float(above))}
    low = [0.0] * FEATURES + [1.0 if n in kept else float(least) for n in range(NEURONS)]
    high = [float(f in features) for f in range(FEATURES)] + [1.0] * NEURONS
    limits = {"at_least": f"-{eps}", "at_most": eps} if eps else {}
    return Bounds(model["output"], over=box(low, high), **limits)
