"""A transformer with layer norm sorts a list: while it writes, one head looks up from the number written last.

mechverify prove proofs/sorted_list.py -p weights=sorted-list.safetensors --out up.cert       # by how much
mechverify prove proofs/sorted_list.py -p weights=... -p position=16 -p least=12 -p at_least=0
At an output position the query token is the number written last, q. The claim: the next number q + 1 scores higher than
any number from 0 to q, wherever they stand in the list.
"""

import torch
from sympy import Max, Min
from torch import nn

from mechverify import Bounds, capture, tokens
from mechverify.graph.adapters import load


class Scores(nn.Module):
    """Of a query token at one position, on every number: the least and the largest one of all positions that the number
    may have in the list, [1, 1] -> [2, numbers]."""

    def __init__(self, model: nn.Module, head: int, position: int, length: int, numbers: int):
        super().__init__()
        self.model, self.head, self.position, self.length, self.numbers = model, head, position, length, numbers

    def forward(self, query):
        model, block, h = self.model, self.model.blocks[0], self.head
        keys = model.embed.W_E[: self.numbers] + model.pos_embed.W_pos[: self.length, None]
        k = block.ln1(keys) @ block.attn.W_K[h] + block.attn.b_K[h]
        q = block.ln1(model.embed.W_E[query[:, 0]] + model.pos_embed.W_pos[self.position]) @ block.attn.W_Q[h]
        scores = k @ (q + block.attn.b_Q[h])[0] / block.attn.W_Q.shape[-1] ** 0.5
        return torch.stack([scores.amin(0), scores.amax(0)])


def claim(weights, head=1, position=14, least=7, most=45, length=10, numbers=51, at_least=""):
    part = Scores(load(weights).module, head, position, length, numbers).eval()
    site = capture(part, torch.zeros(1, 1, dtype=torch.long), vocab=numbers)["output"]
    x = tokens("x", length=1, vocab=numbers, allowed=range(least, most + 1))
    gaps = [site[0, Min(x[0] + 1, most + 1)] - site[1, Max(x[0] - d, 0)] for d in range(most + 1)]
    return Bounds(gaps, over=x, at_least=at_least or None)
