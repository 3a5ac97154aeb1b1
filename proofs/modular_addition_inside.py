"""How a network of two tokens adds them modulo p: with waves.

mechverify prove proofs/modular_addition_inside.py --out waves.cert             # logits are sums of cosines, up to ...
mechverify prove proofs/modular_addition_inside.py -p what=embedding -p waves=4 # embeddings are sinusoids, up to ...
"""

from typing import Literal

import numpy as np
import torch
from sympy import cos, pi, sin

from mechverify import Within, capture, tokens
from mechverify.graph.adapters import load

WEIGHTS = "toy_models/weights/add_mod_59_seed0.safetensors"


def claim(weights=WEIGHTS, what: Literal["waves", "embedding"] = "waves", waves=6, eps=""):
    adapted = load(weights)
    model = capture(adapted.module, adapted.example)
    p = model.captured.vocab
    x = tokens("x", length=2, vocab=p)
    if what == "embedding":
        table = adapted.module.W_x.double().detach().numpy().T
        sums = [wave(row, x[0], waves) for row in table]
        return Within(model["embed_x"], sums, over=x, eps=eps or None)
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    values, c = adapted.module.double()(pairs).detach().numpy(), np.arange(p)
    distance = (pairs.sum(1).numpy()[:, None] - c) % p
    mean = np.bincount(distance.ravel(), values.ravel()) / p**2  # of all logits at that distance
    sums = [wave(mean, x[0] + x[1] - int(t), waves) for t in c]
    return Within([model["logits"][int(t)] for t in c], sums, over=x, eps=eps or None)


def wave(values, d, count):
    """The largest waves of a function on Z_p: their mean, cosines and sines."""
    p, f = len(values), np.fft.rfft(values) / len(values)
    k = sorted(np.argsort(-np.abs(f[1:]))[:count] + 1)
    turn = 2 * pi * d / p
    return float(f[0].real) + sum(
        2 * float(f[i].real) * cos(int(i) * turn) - 2 * float(f[i].imag) * sin(int(i) * turn) for i in k
    )
