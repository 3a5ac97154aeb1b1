"""Train a toy model of superposition: more features than dimensions.

    python -m toy_models.superposition                    # the shipped model, some seconds on one core

relu(W^T W x + b) with W [dimensions, features], trained to reproduce sparse features of falling importance: "Toy Models
of Superposition" (Elhage et al. 2022, arXiv 2209.10652, section 2).
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights" / "superposition_5_in_2.safetensors"
FEATURES, DIMENSIONS, DENSITY, IMPORTANCE = 5, 2, 0.1, 0.9


class Superposition(nn.Module):
    """[batch, features] -> [batch, features]; the site `hidden` has the dimensions."""

    def __init__(self, features: int = FEATURES, dimensions: int = DIMENSIONS):
        super().__init__()
        self.W = nn.Parameter(torch.randn(dimensions, features) / dimensions**0.5)
        self.b = nn.Parameter(torch.zeros(features))
        self.hidden = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.hidden(x @ self.W.T) @ self.W + self.b)


def shipped() -> Superposition:
    module = Superposition()
    module.load_state_dict(load_file(WEIGHTS))
    return module.eval()


def train(seed: int = 0, steps: int = 10_000, batch: int = 1_024) -> tuple[Superposition, float]:
    """The model and its last loss; the same seed gives the same weights on the same torch build."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    module, importance = Superposition(), IMPORTANCE ** torch.arange(FEATURES)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.0)
    loss = torch.zeros(())
    for _ in range(steps):
        x = torch.rand(batch, FEATURES) * (torch.rand(batch, FEATURES) < DENSITY)
        loss = (importance * (module(x) - x) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module, float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    module, loss = train(args.seed)
    save_file(module.state_dict(), args.out)
    print(f"{args.out}: seed={args.seed}, loss {loss:.5f}", flush=True)


if __name__ == "__main__":
    main()
