"""What axioms say of exp, libm:float32 and torch:float32 (in attention), against torch and numpy: every float32 in
[-110, 0], or every STRIDE-th.

python -m benchmarks.libm STRIDE FIRST LAST      # the share of the range (0 to 1) from FIRST to LAST, as JSON
"""

import json
import sys

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

LOWEST = int(np.float32(-110).view(np.uint32))
ZERO = int(np.float32(-0.0).view(np.uint32))
BATCH = 2**20
RELATIVE, ABSOLUTE = 2.0**-21, 2.0**-126
FUSED = 2.0**-18, 2.0**-124  # of exp in scaled_dot_product_attention
KEYS = 16


def implied(d: torch.Tensor) -> np.ndarray:
    """What torch.softmax takes for e^d, up to two roundings: p_1 / p_0 of the scores (0, d, ..., d)."""
    rows = torch.zeros(len(d), 17)
    rows[:, 1:] = d[:, None]
    pattern = rows.softmax(-1).numpy().astype(np.float64)
    return pattern[:, 1] / pattern[:, 0]


def attended(d: torch.Tensor) -> np.ndarray:
    """What scaled_dot_product_attention takes for e^d, up to a few roundings: the scores are (0, d, ..., d), and its
    output says how often the first key was read, and the others."""
    queries, keys, values = (torch.zeros(len(d), 1, n, KEYS) for n in (1, 1 + KEYS, 1 + KEYS))
    queries[..., 0], keys[:, 0, 1:, 0] = 1.0, d[:, None]
    values[..., 0, 0], values[..., 1:, 1] = 1.0, 1.0
    out = scaled_dot_product_attention(queries, keys, values, scale=1.0).double().numpy()
    return out[:, 0, 0, 1] / out[:, 0, 0, 0] / KEYS


def measure(stride: int, first: float, last: float) -> dict[str, float]:
    """Points, and the largest error over what the axiom allows; for softmax and attention of every 17th point, where
    no quotient is subnormal, and with the rounding of two quotients in it (an eighth each)."""
    torch.set_num_threads(1)
    begin, end = (ZERO + int(share * (LOWEST - ZERO)) for share in (first, last))
    worst = {"torch.exp": 0.0, "numpy.exp": 0.0, "torch.softmax": 0.0, "torch.attention": 0.0}
    points = 0
    for start in range(begin, end + 1, BATCH * stride):
        bits = np.arange(start, min(start + BATCH * stride, end + 1), stride, dtype=np.uint32)
        d = bits.view(np.float32)
        true = np.exp(d.astype(np.float64))
        allowed = RELATIVE * true + ABSOLUTE
        tensor = torch.from_numpy(d)
        for name, got in (("torch.exp", tensor.exp().numpy()), ("numpy.exp", np.exp(d))):
            worst[name] = max(worst[name], float((np.abs(got - true) / allowed).max()))
        few = slice(None, None, 17)
        far = true[few] > 2.0**-120
        fused = FUSED[0] * true + FUSED[1]
        for name, of, most in (("torch.softmax", implied, allowed), ("torch.attention", attended, fused)):
            error = np.abs(of(tensor[few].contiguous()) - true[few])
            worst[name] = max(worst[name], float((error / most[few])[far].max(initial=0.0)))
        points += len(d)
    return {"points": points, **worst}


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))))
