"""A captured module's proved range against the module itself."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mechverify import Bounds, ball, capture, kernel, prove, tokens
from mechverify.kernel.core.ranges import Range


class Sampled(NamedTuple):
    """What the kernel proves of a module's first output, and between what the module itself stays on samples of the
    same domain; arrays of the output's entries."""

    proved: Range
    low: Tensor
    high: Tensor

    def outside(self) -> float:
        """How far samples leave the range, relative to their size: float32 rounds by about 1e-7."""
        size = 1 + torch.maximum(self.low.abs(), self.high.abs())
        beyond = torch.maximum(
            torch.as_tensor(self.proved.low) - self.low, self.high - torch.as_tensor(self.proved.high)
        )
        return float((beyond / size).max())

    def times(self) -> float:
        """How many times as wide the proved ranges are as what samples reach, on the average."""
        widths = torch.as_tensor(self.proved.high - self.proved.low)
        return float(widths.mean() / ((self.high - self.low).mean() + 1e-6))


def sampled(
    module: nn.Module, *examples: Tensor, radius: float = 0.05, count: int = 200, vocab: int | None = None
) -> Sampled:
    """Capture, prove, check; and sample: a ball around the real examples, and all tokens."""
    model = capture(module, *examples, vocab=vocab)
    site, captured = next(name for name in model.sites if name.split(".")[0] == "output"), model.captured
    reals = [e.double() for e in examples if e.is_floating_point()]
    reals = [e.reshape(shape) for e, shape in zip(reals, captured.inputs, strict=True)]
    ids = tokens("x", length=captured.tokens_length, vocab=captured.vocab) if captured.vocab else None
    domain = ball(reals if len(reals) > 1 else reals[0], radius) if reals else ids
    domain = domain.with_tokens(ids) if reals and ids else domain
    outcome = prove(Bounds(model[site], over=domain), method="linear", solver=False)
    proved = kernel.check(outcome.certificate, limit=float("inf")).range
    generator = torch.Generator().manual_seed(0)

    def drawn(example: Tensor) -> Tensor:
        """Of the domain; a third of the coordinates at an end."""
        if example.is_floating_point():
            return example + radius * (3 * torch.rand(example.shape, generator=generator) - 1.5).clamp(-1, 1)
        return torch.randint(captured.vocab, example.shape, generator=generator)

    with torch.no_grad():
        values = [_first(module(*map(drawn, examples))).double().flatten() for _ in range(count)]
    return Sampled(proved, torch.stack(values).amin(0), torch.stack(values).amax(0))


def _first(output: object) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output
