"""Train a transformer to say, at every position, which of three candidates has the most votes so far.

    python -m toy_models.majority                         # the shipped model, a few minutes on one core

Tokens 0, 1, 2 are votes; outputs 0, 1, 2 say who leads alone, 3 that nobody does. One layer, one head, a ReLU MLP, no
layer norm.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from toy_models.transformer import Transformer

WEIGHTS = Path(__file__).parent / "weights" / "majority_seed0.safetensors"
CANDIDATES, N_CTX, D_MODEL, D_HEAD, D_MLP = 3, 20, 24, 12, 16


def model() -> Transformer:
    """Untrained: token ids [..., n] to logits [..., n, 4], n up to 20."""
    return Transformer(
        n_ctx=N_CTX, d_vocab=CANDIDATES, d_model=D_MODEL, d_head=D_HEAD, d_mlp=D_MLP, d_vocab_out=CANDIDATES + 1,
        deviation=0.2,
    )  # fmt: skip


def sequences(count: int, generator: torch.Generator) -> Tensor:
    """Votes [count, 20]: half of them uniform, half such that the last in the race often gets the next vote, which
    keeps it close."""
    votes = torch.randint(CANDIDATES, (count, N_CTX), generator=generator)
    close, held = slice(0, count // 2), torch.zeros(count // 2, CANDIDATES)
    for i in range(N_CTX):
        last = (held + 0.5 * torch.rand(held.shape, generator=generator)).argmin(1)
        helped = torch.rand(len(last), generator=generator) < 0.6
        votes[close, i] = torch.where(helped, last, votes[close, i])
        held += torch.nn.functional.one_hot(votes[close, i], CANDIDATES)
    return votes


def leaders(votes: Tensor) -> Tensor:
    """At every position the candidate with the most votes so far, or 3 where several have as many."""
    held = torch.nn.functional.one_hot(votes, CANDIDATES).cumsum(-2)
    alone = (held == held.amax(-1, keepdim=True)).sum(-1) == 1
    return torch.where(alone, held.argmax(-1), CANDIDATES)


def train(seed: int = 0, steps: int = 6_000, batch: int = 512) -> Transformer:
    """Cross-entropy at every position; the same seed gives the same weights on the same torch build."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net, draw = model(), torch.Generator().manual_seed(seed)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.3)  # decay makes attention nearly uniform
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        votes = sequences(batch, draw)
        loss = torch.nn.functional.cross_entropy(net(votes).flatten(0, 1), leaders(votes).flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net


def accuracy(net: Transformer, samples: int = 100_000, seed: int = 1) -> list[float]:
    """At each position, the share answered right of sequences drawn as in training, in float32."""
    votes = sequences(samples, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        right = torch.cat([net(part).argmax(-1) == leaders(part) for part in votes.split(20_000)])
    return right.double().mean(0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    net = train(args.seed, args.steps)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, args.out)
    share = accuracy(net)
    print(f"{args.out}: seed={args.seed}, sampled accuracy {min(share):.5f} at the worst position", flush=True)


if __name__ == "__main__":
    main()
