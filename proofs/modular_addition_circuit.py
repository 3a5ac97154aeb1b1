"""Which waves a network adds with modulo p, and that it doesn't matter where a sum starts.

Its first layer is written as a sum of waves: of the embeddings what has frequency k, for each k. The strongest ones
are parts, and all others one.

mechverify circuits proofs/modular_addition_circuit.py --minimal cardinal         # the fewest waves, the others zero
mechverify prove proofs/modular_addition_circuit.py                     # the sum of waves is the network
mechverify prove proofs/modular_addition_circuit.py -p what=shift -p shift=1   # both tokens moved, the answer moves
mechverify prove proofs/modular_addition_circuit.py -p what=shift -p agrees=8 -p at_least=best   # all logits, up to 8
"""

from typing import Literal

import torch
from torch import nn

from mechverify import Circuits, Equivariant, Part, Same, tokens
from mechverify.graph.adapters import load

WEIGHTS = "toy_models/weights/add_mod_59_seed0.safetensors"


class Waves(nn.Module):
    """Site `waves` [batch, wave, neuron]: what each wave of the embeddings adds to the neurons; the last one is the sum
    of all that are weaker. `frequencies` lists the others."""

    def __init__(self, network: nn.Module, apart: int):
        super().__init__()
        p = len(network.W_x)
        k, t = torch.arange(p // 2 + 1, dtype=torch.float64), torch.arange(p)
        project = (
            (2 * torch.pi / p * k[:, None, None] * (t[:, None] - t)).cos() * (2 - (k == 0).double()[:, None, None]) / p
        )
        tables = [project @ (e @ w) for e, w in zip((network.W_x, network.W_y), network.W.chunk(2), strict=True)]
        order = sum(t.norm(dim=(1, 2)) for t in tables).argsort(descending=True)
        self.frequencies, rest = order[:apart].tolist(), order[apart:]
        self.x, self.y = (
            nn.Parameter(torch.cat([t[order[:apart]], t[rest].sum(0)[None]]).transpose(0, 1)) for t in tables
        )
        self.W_U, self.waves = network.W_U, nn.Identity()

    def forward(self, ids):
        return self.waves(self.x[ids[:, 0]] + self.y[ids[:, 1]]).sum(1).relu() @ self.W_U


def circuits(weights=WEIGHTS, apart=15):
    model = Waves(load(weights).module.double(), int(apart)).eval()
    named = {f"wave {k}": Part("waves", i) for i, k in enumerate([*model.frequencies, "of the others"])}
    return Circuits(model, named, over=tokens("x", length=2, vocab=len(model.x)))


def claim(weights=WEIGHTS, what: Literal["same", "shift"] = "same", apart=15, shift=1, agrees="", at_least="1"):
    network = load(weights).module.double()
    p, s = len(network.W_x), int(shift)
    x = tokens("x", length=2, vocab=p)
    if what == "same":
        return Same(network, Waves(network, int(apart)).eval(), over=x, agrees=agrees or "1e-9", at_least=at_least)
    moved, back = [(t + s) % p for t in range(p)], [(c - 2 * s) % p for c in range(p)]
    return Equivariant(network, over=x, tokens=moved, outputs=back, agrees=agrees or "argmax", at_least=at_least)
