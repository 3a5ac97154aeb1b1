"""Train a transformer to say, at every position, which of three candidates has the most votes so far.

    python -m toy_models.majority                         # the shipped model, a few minutes on one core

Tokens 0, 1, 2 are votes; outputs 0, 1, 2 say who leads alone, 3 that nobody does. One layer, one head, a ReLU MLP, no
layer norm.
"""

from pathlib import Path

import torch
from torch import Tensor

from toy_models.at_every_position import Task, main
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


TASK = Task(model, sequences, leaders, WEIGHTS, steps=6_000)

if __name__ == "__main__":
    main(TASK, __doc__)
