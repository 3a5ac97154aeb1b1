"""A network of two tokens adds them modulo p, and does so with waves.

mechverify prove proofs/modular_addition.py --out margin.cert                   # the smallest margin of all pairs
mechverify prove proofs/modular_addition.py -p what=accuracy --semantics float32
mechverify prove proofs/modular_addition.py -p what=waves --out waves.cert      # logits are sums of cosines, up to ...
mechverify prove proofs/modular_addition.py -p what=embedding -p waves=4        # embeddings are sinusoids, up to ...
"""

import numpy as np
import torch
from sympy import Mod, cos, pi, sin

from mechverify import Accuracy, Bounds, Within, capture, pair_mlp, tokens
from mechverify.graph.adapters import load


def claim(weights="toy_models/weights/add_mod_59_seed0.safetensors", what="margin", waves=6, at_least="0", eps=""):
    if what == "accuracy":
        network = pair_mlp(weights)
        x = tokens("x", length=2, vocab=network.d_vocab)
        return Accuracy(network.logits, equals=Mod(x[0] + x[1], network.d_vocab), over=x, at_least=1)
    adapted = load(weights)
    model = capture(adapted.module, adapted.example)
    p, logits = model.captured.vocab, model["logits"]
    x = tokens("x", length=2, vocab=p)
    if what == "margin":
        right = logits[Mod(x[0] + x[1], p)]
        return Bounds([right - logits[Mod(x[0] + x[1] + d, p)] for d in range(1, p)], over=x, at_least=at_least)
    if what == "waves":
        pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
        values, c = adapted.module.double()(pairs).detach().numpy(), np.arange(p)
        distance = (pairs.sum(1).numpy()[:, None] - c) % p
        mean = np.bincount(distance.ravel(), values.ravel()) / p**2  # of all logits at that distance
        sums = [wave(mean, x[0] + x[1] - int(t), waves) for t in c]
        return Within([logits[int(t)] for t in c], sums, over=x, eps=eps or None)
    table = adapted.module.W_x.double().detach().numpy().T
    sums = [wave(row, x[0], waves) for row in table]
    return Within(model["embed_x"], sums, over=x, eps=eps or None)


def wave(values, d, count):
    """The largest waves of a function on Z_p: their mean, cosines and sines."""
    p, f = len(values), np.fft.rfft(values) / len(values)
    k = sorted(np.argsort(-np.abs(f[1:]))[:count] + 1)
    turn = 2 * pi * d / p
    return float(f[0].real) + sum(
        2 * float(f[i].real) * cos(int(i) * turn) - 2 * float(f[i].imag) * sin(int(i) * turn) for i in k
    )
