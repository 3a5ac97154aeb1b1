"""How a transformer finds the largest token: it attends more to larger tokens, and copies what it attends to.

mechverify prove proofs/max_of_k_inside.py --out scores.cert           # by how much a score grows with the token
mechverify prove proofs/max_of_k_inside.py -p what=copies -p least=8   # by how much a token's own logit leads
"""

from typing import Literal

import torch
from torch import nn

from mechverify import Bounds, Mod, capture, tokens
from mechverify.graph.adapters import load


class Scores(nn.Module):
    """Of a query token at the last position, on every key token at `position`: [1, 1] -> [1, vocab]."""

    def __init__(self, model: nn.Module, position: int):
        super().__init__()
        self.model, self.position = model, position

    def forward(self, query):
        model, attn = self.model, self.model.blocks[0].attn
        q = (model.embed.W_E[query[:, 0]] + model.pos_embed.W_pos[-1]) @ attn.W_Q[0] + attn.b_Q[0]
        keys = (model.embed.W_E + model.pos_embed.W_pos[self.position]) @ attn.W_K[0] + attn.b_K[0]
        return q @ keys.T / attn.W_Q.shape[-1] ** 0.5


class Values(nn.Module):
    """What attending to a token, wherever it stands, adds to the logits: [1, 1] -> [1, vocab]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, token):
        attn = self.model.blocks[0].attn
        return self.model.embed.W_E[token[:, 0]] @ attn.W_V[0] @ attn.W_O[0] @ self.model.unembed.W_U


def claim(
    weights="toy_models/weights/max_of_4_seed0.safetensors",
    what: Literal["scores", "copies"] = "scores",
    position=0,
    least=0,
    at_least="",
):
    model, start = load(weights, normalization=None).module, int(least)
    part = (Scores(model, int(position)) if what == "scores" else Values(model)).eval()
    site = capture(part, torch.zeros(1, 1, dtype=torch.long))["output"]
    vocab = len(model.embed.W_E)
    x = tokens("x", length=1, vocab=vocab, allowed=None if what == "scores" else range(start, vocab))
    steps = [site[t + 1] - site[t] for t in range(start, vocab - 1)]
    margins = [site[x[0]] - site[Mod(x[0] + d, vocab)] for d in range(1, vocab)]
    return Bounds(steps if what == "scores" else margins, over=x, at_least=at_least or None)
