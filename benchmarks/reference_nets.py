"""Small networks with reference bound widths, to compare bound engines on the same work.

`nets()` yields (name, module, centre, radius): an L-infinity ball of that radius around `centre`
(shape [1, ...]); the figure of merit is the mean width of the output bounds, lower is better.
Seeded, so every run builds the same weights. REFERENCE holds what auto_LiRPA measured on them in
float32 on CPU: `upstream` is release 0.7.1, `pypi` is 0.3 with a compatibility layer; None: it failed.

`relu_box(n, seed)` builds the 2-n-n-1 ReLU networks used to compare exact solvers; weights are
multiples of 1/64. The question asked there: is the output below (largest sampled value plus a tenth
of the sampled range) on the box [-r, r]^2? (It is.)
"""

import numpy as np
import torch
from torch import nn


class Attention(nn.Module):
    """One attention block over 4 positions of width 16, read at the last position, 20 outputs."""

    def __init__(self, heads=1, layer_norm=False, mlp=False, d=16, vocab=20, length=4):
        super().__init__()
        self.heads, self.length, self.d = heads, length, d
        bias = heads > 1
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=bias) for _ in range(4))
        self.unembed = nn.Linear(d, vocab, bias=bias)
        self.norm = nn.LayerNorm(d) if layer_norm else None
        self.mlp = nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, d)) if mlp else None

    def forward(self, x):
        def split(t):
            return t.view(-1, self.length, self.heads, self.d // self.heads).transpose(1, 2)

        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        pattern = torch.softmax(q @ k.transpose(2, 3) / (self.d // self.heads) ** 0.5, dim=-1)
        x = x + self.o((pattern @ v).transpose(1, 2).reshape(-1, self.length, self.d))
        if self.mlp is not None:
            x = x + self.mlp(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.unembed(x)[:, -1]


def _mlp(first, second):
    return nn.Sequential(nn.Linear(10, 50), first, nn.Linear(50, 50), second, nn.Linear(50, 5))


def nets():
    """Yield (name, module, centre [1, ...], radius)."""
    table = [
        ("relu-mlp", lambda: _mlp(nn.ReLU(), nn.ReLU()), (1, 10), 0.1),
        ("tanh-sigmoid-mlp", lambda: _mlp(nn.Tanh(), nn.Sigmoid()), (1, 10), 0.1),
        ("gelu-mlp", lambda: _mlp(nn.GELU(), nn.GELU()), (1, 10), 0.1),
        ("attention", lambda: Attention(), (1, 4, 16), 0.05),
        ("attention-4-heads", lambda: Attention(heads=4), (1, 4, 16), 0.05),
        ("attention-layer-norm", lambda: Attention(layer_norm=True), (1, 4, 16), 0.05),
        ("attention-relu-mlp", lambda: Attention(mlp=True), (1, 4, 16), 0.05),
    ]
    for seed, (name, make, shape, radius) in enumerate(table):
        torch.manual_seed(seed)
        module = make().eval()
        yield name, module, torch.randn(shape), radius


def relu_box(n, seed):
    """Weights [n,2], [n,n], [1,n] and biases of a 2-n-n-1 ReLU network, multiples of 1/64."""
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(0, 2**-0.5, (n, 2)),
        rng.normal(0, (2 / n) ** 0.5, (n, n)),
        rng.normal(0, (2 / n) ** 0.5, (1, n)),
    ]
    biases = [rng.normal(0, 0.3, n), rng.normal(0, 0.3, n), np.zeros(1)]
    return [np.round(w * 64) / 64 for w in weights], [np.round(b * 64) / 64 for b in biases]


# Mean output width: (interval, backward linear, optimised linear). `reached` is the width that gradient
# search actually attains inside the ball in float64: no sound bound can be narrower.
REFERENCE = {
    "relu-mlp": {
        "upstream": (1.161297, 0.073901, 0.069453),
        "pypi": (1.161297, 0.073901, 0.069447),
        "reached": 0.047781,
    },
    "tanh-sigmoid-mlp": {
        "upstream": (0.627299, 0.022811, 0.022353),
        "pypi": (0.627299, 0.022846, 0.022345),
        "reached": 0.019578,
    },
    "gelu-mlp": {"upstream": (None, None, None), "pypi": (None, None, None), "reached": 0.029181},
    "attention": {
        "upstream": (2.900870, 0.279917, 0.269337),
        "pypi": (3.884277, 0.282825, 0.282825),
        "reached": 0.244650,
    },
    "attention-4-heads": {
        "upstream": (1.888110, 0.281030, 0.271315),
        "pypi": (2.356313, 0.284846, 0.284846),
        "reached": 0.245231,
    },
    "attention-layer-norm": {
        "upstream": (1994.478516, 0.561069, 0.451808),
        "pypi": (None, 0.643329, 0.643329),
        "reached": 0.323728,
    },
    "attention-relu-mlp": {
        "upstream": (12.531591, 0.324252, 0.306756),
        "pypi": (16.919785, 0.329146, None),
        "reached": 0.261197,
    },
}
