"""How a network finds the sign of a sum: it attends to all tokens alike, so that what attention adds is affine in their
sum, and the neurons read the sign off that.

mechverify prove proofs/running_sum_inside.py -p what=attention --method linear    # every weight is 1/n, up to ...
mechverify prove proofs/running_sum_inside.py -p what=moved --method linear    # hence attention adds c + d sum
mechverify prove proofs/running_sum_inside.py -p what=negative -p length=2    # and from that alone, the sign
"""

from typing import Literal

import torch
from sympy import Rational
from torch import nn

from mechverify import Holds, Within, capture, tokens
from mechverify.graph.adapters import load


class AtTheLastPosition(nn.Module):
    """What the network does there, ids [1, n] to logits [1, 3], with its steps as sites."""

    def __init__(self, model: nn.Module, values: list[int]):
        super().__init__()
        self.model = model
        self.register_buffer("values", torch.tensor(values, dtype=torch.float32))
        self.total, self.pattern, self.moved = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, ids):
        model, block = self.model, self.model.blocks[0]
        attn = block.attn
        self.total(self.values[ids].sum(1, keepdim=True))
        x = model.embed.W_E[ids] + model.pos_embed.W_pos[: ids.shape[1]]
        q = x[:, -1] @ attn.W_Q[0] + attn.b_Q[0]
        k = x @ attn.W_K[0] + attn.b_K[0]
        pattern = self.pattern((q[:, None] @ k.mT / attn.W_Q.shape[-1] ** 0.5).softmax(-1))
        z = (pattern @ (x @ attn.W_V[0] + attn.b_V[0]))[:, 0]
        residual = x[:, -1] + self.moved(z @ attn.W_O[0] + attn.b_O)
        return model.unembed((residual + block.mlp(residual))[:, None])[:, 0]


def affine(model: nn.Module, values: list[int], n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """c and d [d_model]: uniform attention to n tokens adds about c + d sum."""
    attn, v = model.blocks[0].attn, torch.tensor(values, dtype=torch.float64)
    with torch.no_grad():
        copied, placed = ((a @ attn.W_V[0] @ attn.W_O[0]).double()
                          for a in (model.embed.W_E, model.pos_embed.W_pos[:n].mean(0)))  # fmt: skip
        c = copied.mean(0) + placed + (attn.b_V[0] @ attn.W_O[0] + attn.b_O).double()
    return c, v @ copied / (v @ v) / n


def claim(
    weights="toy_models/weights/running_sum_seed0.safetensors",
    what: Literal["attention", "moved", "negative", "zero", "positive"] = "moved",
    length=20,
    margin="0",
    eps="",
    lemmas="yes",
):
    network, n = load(weights, act_fn="relu", normalization=None).module, int(length)
    reach = len(network.embed.W_E) // 2
    values = [*range(reach + 1), *range(-reach, 0)]
    part = AtTheLastPosition(network, values).eval()
    model = capture(part, torch.zeros(1, n, dtype=torch.long), vocab=len(values))
    x, total, logits = tokens("x", length=n, vocab=len(values)), model["total"][0], model["output"]
    attention = Within(model["pattern"], Rational(1, n), over=x, eps=eps if what == "attention" and eps else None)
    if what == "attention":
        return attention
    c, d = affine(network, values, n)
    sums = [float(a) + float(b) * total for a, b in zip(c, d, strict=True)]
    if what == "moved":
        return Within(model["moved"], sums, over=x, eps=eps or None, using=[attention] if lemmas == "yes" else [])
    given, right = {"negative": (total <= -1, 0), "zero": (abs(total) <= 0, 1), "positive": (total >= 1, 2)}[what]
    others = [logits[right] - logits[t] >= Rational(margin) for t in range(3) if t != right]
    cases = [x[-1] >= v for v in range(1, len(values))] + [total <= s for s in range(-reach * n, reach * n)]
    return Holds(others, over=x, given=given, cases=cases, using=[Within(model["moved"], sums, over=x)])
