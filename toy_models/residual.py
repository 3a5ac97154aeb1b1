"""Train a residual MLP to add relu(x) to sparse features x.

    python -m toy_models.residual                         # the shipped model, some seconds on one core
    python -m toy_models.residual --seed 1 --out mine.safetensors

Features are embedded at fixed random directions, an MLP adds to the stream, and the output is read along the same
directions: the toy model on which parameters are decomposed in Braun et al. 2025 (arXiv 2501.14926, section 3.2).
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights" / "residual_8_in_12_seed0.safetensors"
FEATURES, WIDTH, NEURONS, DENSITY = 8, 12, 16, 0.1


class Residual(nn.Module):
    """[batch, features] -> [batch, features]; site `hidden` has the neurons."""

    def __init__(self):
        super().__init__()
        directions = torch.randn(FEATURES, WIDTH)
        self.W_E = nn.Parameter(directions / directions.norm(dim=1, keepdim=True), requires_grad=False)
        self.W_in = nn.Parameter(torch.randn(WIDTH, NEURONS) / WIDTH**0.5)
        self.W_out = nn.Parameter(torch.randn(NEURONS, WIDTH) / NEURONS**0.5)
        self.hidden = nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [batch, neurons] multiplies what each neuron adds."""
        stream = x @ self.W_E
        hidden = self.hidden(torch.relu(stream @ self.W_in))
        hidden = hidden if mask is None else hidden * mask
        return (stream + hidden @ self.W_out) @ self.W_E.T


def shipped() -> Residual:
    module = Residual()
    module.load_state_dict(load_file(WEIGHTS))
    return module.eval()


def train(seed: int = 0, steps: int = 10_000, batch: int = 1_024) -> tuple[Residual, float]:
    """The model and its last loss; the same seed gives the same weights on the same torch build."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    module = Residual()
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps, pct_start=0.1)
    loss = torch.zeros(())
    for _ in range(steps):
        x = (2 * torch.rand(batch, FEATURES) - 1) * (torch.rand(batch, FEATURES) < DENSITY)
        loss = ((module(x) - x - x.relu()) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return module, float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    module, loss = train(args.seed)
    save_file(module.state_dict(), args.out)
    print(f"{args.out}: seed={args.seed}, loss {loss:.6f}", flush=True)


if __name__ == "__main__":
    main()
