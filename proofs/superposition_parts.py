"""Five features in two dimensions, their directions as parts of the weights: while some features are on, how far do
outputs move where the parts of the others are taken away, each by a factor of its own in [least, 1]?

mechverify prove proofs/superposition_parts.py                          # feature 0 on: the least eps of each output
mechverify prove proofs/superposition_parts.py -p least=0.5 -p eps=0.16
mechverify prove proofs/superposition_parts.py -p "on=0 1" -p least=0.5
"""

import torch
from torch import nn

from mechverify import Bounds, box, capture
from toy_models.superposition import FEATURES, shipped


class Ablation(nn.Module):
    """Of features and a factor for each part [batch, 2 features], what the factors change in the output. Part i of W is
    its column i, feature i's direction, wherever W stands."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, both):
        x, mask = both.chunk(2, dim=1)
        W, b = self.model.W, self.model.b
        return torch.relu(x @ W.T @ W + b) - torch.relu(mask * ((mask * x) @ W.T @ W) + b)


def claim(on="0", least="0", eps=""):
    model = capture(Ablation(shipped()).eval(), torch.zeros(1, 2 * FEATURES))
    features = {int(i) for i in str(on).split()}
    low = [0.0] * FEATURES + [1.0 if i in features else float(least) for i in range(FEATURES)]
    high = [float(i in features) for i in range(FEATURES)] + [1.0] * FEATURES
    limits = {"at_least": f"-{eps}", "at_most": eps} if eps else {}
    return Bounds(model["output"], over=box(low, high), **limits)
