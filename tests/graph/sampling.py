"""A captured module's proved range against the module itself."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mechverify import Bounds, ball, capture, kernel, prove, tokens
from mechverify.kernel.claim import Range


class Sampled(NamedTuple):
    """What the kernel's checker proves of a module's first output, and what the module itself gives on samples of the
    same domain."""

    proved: Range
    low: Tensor
    high: Tensor

    def outside(self) -> float:
        """How far the samples leave the range, relative to their size: float32 rounds, by about 1e-6."""
        scale = 1 + torch.maximum(self.low.abs(), self.high.abs())
        beyond = torch.maximum(
            torch.as_tensor(self.proved.low) - self.low, self.high - torch.as_tensor(self.proved.high)
        )
        return float((beyond / scale).max())


def sampled(
    module: nn.Module, *examples: Tensor, radius: float = 0.1, count: int = 200, vocab: int | None = None
) -> Sampled:
    """Capture, prove, check, and sample a ball around the real examples, and all tokens."""
    model = capture(module, *examples, vocab=vocab)
    site = next(name for name in model.sites if name.split(".")[0] == "output")
    reals = [e[0].double() for e in examples if e.is_floating_point()]
    ids = tokens("x", length=model.captured.tokens_length, vocab=model.captured.vocab) if model.captured.vocab else None
    domain = ball(reals, radius) if reals else ids
    domain = domain.with_tokens(ids) if reals and ids else domain
    outcome = prove(Bounds(model[site], over=domain), method="linear", solver=False)
    proved = kernel.check(outcome.certificate, limit=float("inf")).range
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        point = [e + radius * (3 * torch.rand(e.shape, generator=generator) - 1.5).clamp(-1, 1) if e.is_floating_point() else torch.randint(model.captured.vocab, e.shape, generator=generator)
                 for e in examples]  # fmt: skip
        found.append(_first(module(*point)).double().flatten())
    values = torch.stack(found)
    return Sampled(proved, values.amin(0), values.amax(0))


def _first(output: object) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
