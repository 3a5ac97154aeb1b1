"""Train a network of two tokens to compose permutations of five.

    python -m toy_models.composition                      # the shipped model, about a minute on one core
    python -m toy_models.composition --seed 1 --out mine.safetensors

Token i is the i-th of all 120 in the order of itertools.permutations; the answer to (a, b) is a after b: i -> a[b[i]].
The network is that of modular_addition: "A Toy Model of Universality" (Chughtai et al. 2023, arXiv 2302.03025).
"""

import argparse
from itertools import permutations
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from toy_models.modular_addition import logits

WEIGHTS = Path(__file__).parent / "weights" / "compose_s5_seed0.safetensors"
WIDTH, HIDDEN, STEPS, BATCH = 32, 128, 4_000, 2_048
ELEMENTS = [*permutations(range(5))]
ODD = [sum(p[i] > p[j] for j in range(5) for i in range(j)) % 2 for p in ELEMENTS]
_INDEX = {p: i for i, p in enumerate(ELEMENTS)}
TABLE = [_INDEX[tuple(a[i] for i in b)] for a in ELEMENTS for b in ELEMENTS]  # of a and b, at 120 a + b


def train(seed: int = 0, steps: int = STEPS) -> dict[str, Tensor]:
    """The same seed gives the same weights on the same torch build, and a model of the same quality on another."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    n = len(ELEMENTS)
    shapes = {"W_x": (n, WIDTH), "W_y": (n, WIDTH), "W": (2 * WIDTH, HIDDEN), "W_U": (HIDDEN, n)}
    state = {name: (torch.randn(s) / s[0] ** 0.5).requires_grad_() for name, s in shapes.items()}
    optimiser = torch.optim.AdamW(state.values(), lr=1e-2, weight_decay=0.3, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, steps, pct_start=0.1)
    table = torch.tensor(TABLE)
    for _ in range(steps):
        pairs = torch.randint(n, (BATCH, 2))
        right = table[pairs[:, 0] * n + pairs[:, 1]]
        loss = torch.nn.functional.cross_entropy(logits(state, pairs), right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return {name: t.detach() for name, t in state.items()}


def accuracy(state: dict[str, Tensor]) -> float:
    """The share of all pairs that is right, in float32."""
    every = torch.arange(len(ELEMENTS))
    return float((logits(state, torch.cartesian_prod(every, every)).argmax(-1) == torch.tensor(TABLE)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    state = train(args.seed, args.steps)
    save_file({name: t.contiguous() for name, t in state.items()}, args.out)
    print(f"{args.out}: seed={args.seed}, accuracy on all pairs {accuracy(state):.6f}", flush=True)


if __name__ == "__main__":
    main()
