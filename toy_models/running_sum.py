"""Train a transformer to say, at every position, the sign of the sum of its tokens so far.

    python -m toy_models.running_sum                      # the shipped model, a few minutes on one core
    python -m toy_models.running_sum --seed 1 --out mine.safetensors

Tokens are -5 .. 5, id = token mod 11; outputs 0, 1, 2 say negative, zero, positive. One layer, one head, a ReLU MLP of
a few neurons, no layer norm.
"""

from pathlib import Path

import torch
from torch import Tensor

from toy_models.at_every_position import Task, main
from toy_models.transformer import Transformer

WEIGHTS = Path(__file__).parent / "weights" / "running_sum_seed0.safetensors"
REACH, N_CTX, D_MODEL, D_HEAD, D_MLP = 5, 20, 24, 12, 8


def model() -> Transformer:
    """Untrained: token ids [..., n] to logits [..., n, 3], n up to 20."""
    return Transformer(
        n_ctx=N_CTX, d_vocab=2 * REACH + 1, d_model=D_MODEL, d_head=D_HEAD, d_mlp=D_MLP, d_vocab_out=3, deviation=0.2
    )


def sequences(count: int, generator: torch.Generator) -> Tensor:
    """Token ids [count, 20]: half of the sequences uniform, half with sums that stay near zero, where it is hard."""
    numbers = torch.randint(-REACH, REACH + 1, (count, N_CTX), generator=generator)
    near, total = slice(0, count // 2), torch.zeros(count // 2, dtype=torch.long)
    for i in range(1, N_CTX):
        total += numbers[near, i - 1]
        back = -total + torch.randint(-2, 3, total.shape, generator=generator)
        returns = torch.rand(total.shape, generator=generator) < 0.5
        numbers[near, i] = torch.where(returns, back.clamp(-REACH, REACH), numbers[near, i])
    return numbers % (2 * REACH + 1)


def signs(ids: Tensor) -> Tensor:
    """0, 1, 2 for a negative, zero or positive sum so far."""
    numbers = torch.where(ids > REACH, ids - (2 * REACH + 1), ids)
    return numbers.cumsum(-1).sign() + 1


TASK = Task(model, sequences, signs, WEIGHTS, steps=4_000)

if __name__ == "__main__":
    main(TASK, __doc__)
