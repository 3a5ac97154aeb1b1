"""A trained transformer keeps its answer while the input's embedding is moved: the right logit stays ahead.

The tokens are fixed, the embedding of every position may move by `radius` in every coordinate.

mechverify prove proofs/robust.py -p radius=0.02 --out robust.cert
"""

import torch
from torch import nn

from mechverify import Bounds, ball, capture
from mechverify.graph.adapters import load


class Margins(nn.Module):
    """By how much the answer's logit exceeds each other one, from the embedding [1, positions, d_model] on."""

    def __init__(self, model: nn.Module, answer: int):
        super().__init__()
        self.model, self.answer = model, answer
        self.others = [t for t in range(model.unembed.W_U.shape[1]) if t != answer]

    def forward(self, residual):
        for block in self.model.blocks:
            residual = block(residual)
        logits = self.model.unembed(residual)[:, -1]
        return logits[:, self.answer, None] - logits[:, self.others]


def claim(weights="toy_models/weights/max_of_4_seed0.safetensors", sequence="3 17 41 8", radius=0.02):
    model = load(weights, normalization=None).module
    ids = torch.tensor([[int(t) for t in sequence.split()]])
    with torch.no_grad():
        residual = model.embed(ids) + model.pos_embed(ids)
    margins = Margins(model, int(ids.max())).eval()
    return Bounds(capture(margins, residual)["output"], over=ball(residual[0], radius), at_least=0.0)
