"""Train a network of two tokens to add them modulo a prime.

    python -m toy_models.modular_addition                         # the shipped model, about a minute on one core
    python -m toy_models.modular_addition --p 113 --seed 1 --out mine.safetensors

relu(concat(W_x[a], W_y[b]) @ W) @ W_U, trained on all p^2 pairs with weight decay, under which the network becomes one
of waves: "Progress measures for grokking via mechanistic interpretability" (Nanda et al. 2023, arXiv 2301.05217,
sections 3 and 4).
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"
P, WIDTH, HIDDEN, STEPS = 59, 32, 64, 4_000


def path(p: int = P, seed: int = 0) -> Path:
    return WEIGHTS / f"add_mod_{p}_seed{seed}.safetensors"


def logits(state: dict[str, Tensor], pairs: Tensor) -> Tensor:
    """[batch, 2] -> [batch, p]"""
    both = torch.cat([state["W_x"][pairs[:, 0]], state["W_y"][pairs[:, 1]]], -1)
    return torch.relu(both @ state["W"]) @ state["W_U"]


def train(p: int = P, seed: int = 0, steps: int = STEPS) -> dict[str, Tensor]:
    """The same seed gives the same weights on the same torch build, and a model of the same quality on another."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # summation order, and so the weights, would depend on the number of threads
    shapes = {"W_x": (p, WIDTH), "W_y": (p, WIDTH), "W": (2 * WIDTH, HIDDEN), "W_U": (HIDDEN, p)}
    state = {name: (torch.randn(s) / s[0] ** 0.5).requires_grad_() for name, s in shapes.items()}
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    sums = pairs.sum(1) % p
    optimiser = torch.optim.AdamW(state.values(), lr=5e-3, weight_decay=1.0, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * (1 - step / steps)
        loss = torch.nn.functional.cross_entropy(logits(state, pairs), sums)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: t.detach() for name, t in state.items()}


def accuracy(state: dict[str, Tensor]) -> float:
    """The share of all pairs that is right, in float32."""
    p = len(state["W_x"])
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    return float((logits(state, pairs).argmax(-1) == pairs.sum(1) % p).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p", type=int, default=P, help="the modulus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    if args.p < 2:
        parser.error("--p must be at least 2")
    state = train(args.p, args.seed, args.steps)
    out = args.out or path(args.p, args.seed)
    save_file({name: t.contiguous() for name, t in state.items()}, out)
    print(f"{out}: p={args.p} seed={args.seed}, accuracy on all pairs {accuracy(state):.6f}", flush=True)


if __name__ == "__main__":
    main()
