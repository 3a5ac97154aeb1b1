"""Train a transformer with an MLP to answer at every position of a sequence: what running_sum and majority share."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from toy_models.transformer import Transformer


@dataclass(frozen=True)
class Task:
    """An untrained `model`; `sequences(count, generator)` draws token ids [count, positions], `answers` are the right
    outputs for them [count, positions]."""

    model: Callable[[], Transformer]
    sequences: Callable[[int, torch.Generator], Tensor]
    answers: Callable[[Tensor], Tensor]
    weights: Path
    steps: int


def train(task: Task, seed: int = 0, steps: int | None = None, batch: int = 512) -> Transformer:
    """Cross-entropy at every position; the same seed gives the same weights on the same torch build."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net, draw, steps = task.model(), torch.Generator().manual_seed(seed), steps or task.steps
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.3)  # decay makes attention nearly uniform
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        ids = task.sequences(batch, draw)
        loss = torch.nn.functional.cross_entropy(net(ids).flatten(0, 1), task.answers(ids).flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net


def accuracy(task: Task, net: Transformer, samples: int = 100_000, seed: int = 1) -> list[float]:
    """At each position, the share answered right of sequences drawn as in training, in float32."""
    ids = task.sequences(samples, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        right = torch.cat([net(part).argmax(-1) == task.answers(part) for part in ids.split(20_000)])
    return right.double().mean(0).tolist()


def main(task: Task, description: str | None) -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=task.steps)
    parser.add_argument("--out", type=Path, default=task.weights, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    net = train(task, args.seed, args.steps)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, args.out)
    share = accuracy(task, net)
    print(f"{args.out}: seed={args.seed}, sampled accuracy {min(share):.5f} at the worst position", flush=True)
