"""Networks of two tokens: relu(concat(W_x[a], W_y[b]) @ W) @ W_U, as modular arithmetic is studied on."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mechverify.graph.adapters.modules import Adapted, FromFile, Holder
from mechverify.graph.source import CaptureError

NAMES = {"W_x", "W_y", "W", "W_U"}


class PairMLP(Holder, FromFile):
    """Tokens [batch, 2] -> logits [batch, out]; sites embed_x, embed_y, pre, hidden, logits."""

    W_x: Tensor
    W_y: Tensor
    W: Tensor
    W_U: Tensor
    assumed = ("activation relu",)

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__(dict(state), "")
        self.embed_x, self.embed_y, self.pre, self.hidden, self.logits = (
            nn.Identity() for _ in range(5)
        )
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        both = torch.cat(
            [
                self.embed_x(self.W_x[tokens[:, 0]]),
                self.embed_y(self.W_y[tokens[:, 1]]),
            ],
            -1,
        )
        hidden = self.hidden(torch.relu(self.pre(both @ self.W)))
        return self.logits(hidden @ self.W_U)


def recognises(state: Mapping[str, Tensor]) -> bool:
    return {"W_x", "W_y"} <= set(state)


def adapt(state: Mapping[str, Tensor]) -> Adapted:
    """W_x [vocab, d], W_y [vocab, e], W [d + e, hidden], W_U [hidden, out]. Raises CaptureError."""
    shapes = {name: list(t.shape) for name, t in state.items()}
    fits = set(shapes) == NAMES and all(len(s) == 2 for s in shapes.values())
    if not (
        fits
        and shapes["W_x"][1] + shapes["W_y"][1] == shapes["W"][0]
        and shapes["W"][1] == shapes["W_U"][0]
        and shapes["W_x"][0] == shapes["W_y"][0]
    ):
        raise CaptureError(
            f"expected W_x [v, d], W_y [v, e], W [d + e, m], W_U [m, out]; got {shapes}"
        )
    flags = {
        "d_vocab": shapes["W_x"][0],
        "d_hidden": shapes["W"][1],
        "act_fn": "relu",
        "biases": False,
    }
    return Adapted(PairMLP(state), torch.zeros(1, 2, dtype=torch.long), flags)
