"""Train a transformer to say, at every position, the sign of the sum of its tokens so far.

    python -m toy_models.running_sum                      # the shipped model, a few minutes on one core
    python -m toy_models.running_sum --seed 1 --out mine.safetensors

Tokens are -5 .. 5, id = token mod 11; outputs 0, 1, 2 say negative, zero, positive. One layer, one head, a ReLU MLP of
a few neurons, no layer norm.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from toy_models.transformer import Transformer

WEIGHTS = Path(__file__).parent / "weights" / "running_sum_seed0.safetensors"
REACH, N_CTX, D_MODEL, D_HEAD, D_MLP = 5, 20, 24, 12, 8


def model() -> Transformer:
    """Untrained: token ids [..., n] to logits [..., n, 3], n up to 20."""
    return Transformer(
        n_ctx=N_CTX, d_vocab=2 * REACH + 1, d_model=D_MODEL, d_head=D_HEAD, d_mlp=D_MLP, d_vocab_out=3, deviation=0.2
    )


def sequences(count: int, generator: torch.Generator) -> Tensor:
    """Numbers [count, 20]: half of the sequences uniform, half with sums that stay near zero, where it is hard."""
    numbers = torch.randint(-REACH, REACH + 1, (count, N_CTX), generator=generator)
    near, total = slice(0, count // 2), torch.zeros(count // 2, dtype=torch.long)
    for i in range(1, N_CTX):
        total += numbers[near, i - 1]
        back = -total + torch.randint(-2, 3, total.shape, generator=generator)
        returns = torch.rand(total.shape, generator=generator) < 0.5
        numbers[near, i] = torch.where(returns, back.clamp(-REACH, REACH), numbers[near, i])
    return numbers


def signs(numbers: Tensor) -> Tensor:
    return numbers.cumsum(-1).sign() + 1


def train(seed: int = 0, steps: int = 4_000, batch: int = 512) -> Transformer:
    """Cross-entropy at every position; the same seed gives the same weights on the same torch build."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net, draw = model(), torch.Generator().manual_seed(seed)
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.3)  # decay makes attention nearly uniform
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        numbers = sequences(batch, draw)
        loss = torch.nn.functional.cross_entropy(net(numbers % (2 * REACH + 1)).flatten(0, 1), signs(numbers).flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net


def accuracy(net: Transformer, samples: int = 100_000, seed: int = 1) -> list[float]:
    """At each position, the share answered right of sequences drawn as in training, in float32."""
    numbers = sequences(samples, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        right = torch.cat([net(part % (2 * REACH + 1)).argmax(-1) == signs(part) for part in numbers.split(20_000)])
    return right.double().mean(0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where to write; by default toy_models/weights")
    args = parser.parse_args()
    net = train(args.seed, args.steps)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, args.out)
    share = accuracy(net)
    print(f"{args.out}: seed={args.seed}, sampled accuracy {min(share):.5f} at the worst position", flush=True)


if __name__ == "__main__":
    main()
