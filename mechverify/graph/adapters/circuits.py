"""Parts of a transformer between tokens, without a sequence (Elhage et al. 2021, "A Mathematical Framework for
Transformer Circuits"): what a head's scores and values, and the stream itself, are where the stream holds a token's
embedding alone, and a position's where one is given.

In the first layer that is what the model computes; in a later one it is the direct path from the embedding. Layer norm
before attention is exact, as it depends on one token then. Modules of token ids [batch, length] that say something of
each of these tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mechverify.graph.adapters.modules import Block, Norm, Rebuilt
from mechverify.graph.source import CaptureError


class Circuit(nn.Module):
    block: Block

    def __init__(self, model: Rebuilt, layer: int | None = None, head: int = 0):
        """Raises CaptureError where the model has no such layer or head."""
        super().__init__()
        self.model, self.head = model, head
        if layer is None:
            return
        if not 0 <= layer < len(model.blocks):
            raise CaptureError(
                f"layer {layer}: the model has {len(model.blocks)}, the first is 0"
            )
        block = model.blocks[layer]
        assert isinstance(block, Block)
        self.block, heads = block, len(block.attn.W_Q)
        if not 0 <= head < heads:
            raise CaptureError(
                f"head {head} of layer {layer}: there are {heads}, the first is 0"
            )

    def position(self, index: int | None) -> int | None:
        """Counted from the start. Raises CaptureError where the model has no such position."""
        table = self.model.pos_embed
        if index is None or table is None:
            if index is not None:
                raise CaptureError(
                    f"position {index}: the model has no position embeddings"
                )
            return None
        count = len(table.W_pos)
        if not -count <= index < count:
            raise CaptureError(
                f"position {index}: the model has {count}, the first is 0"
            )
        return index % count

    def stream(self, ids: Tensor, position: int | None) -> Tensor:
        """[*ids.shape, d_model]"""
        x = self.model.embed(ids)
        if position is None:
            return x
        assert self.model.pos_embed is not None
        return x + self.model.pos_embed.W_pos[position]

    def all_tokens(self) -> Tensor:
        return torch.arange(len(self.model.embed.W_E))

    def projected(self, letter: str, x: Tensor) -> Tensor:
        """What the head reads of the stream: [..., d_model] to [..., d_head]."""
        return self.block.attn.of_head(letter, self.block.ln1(x), self.head)


class QK(Circuit):
    """The score that a query token gives to each key token, before mask and softmax: [batch, length] to
    [batch, length, d_vocab], or [batch, length, keys, d_vocab] where `key` lists several positions; `lowest` and
    `highest` are the extremes of these, [batch, length, d_vocab]: of a key token wherever it stands."""

    def __init__(
        self, model: Rebuilt, layer: int, head: int, query: int | None, key: int | Sequence[int] | None,
    ):  # fmt: skip
        """Raises CaptureError, also for a key after the query where the model is causal."""
        super().__init__(model, layer, head)
        self.several = isinstance(key, Sequence)
        self.lowest, self.highest = nn.Identity(), nn.Identity()
        self.query = self.position(query)
        self.keys = [
            self.position(k) for k in (key if isinstance(key, Sequence) else [key])
        ]
        if not self.keys:
            raise CaptureError("key: no position is given")
        if self.block.attn.causal and self.query is not None:
            unseen = [k for k in self.keys if k is not None and k > self.query]
            if unseen:
                raise CaptureError(
                    f"position {self.query} doesn't see {unseen[0]}: the model is causal"
                )

    def forward(self, ids: Tensor) -> Tensor:
        q = self.projected("Q", self.stream(ids, self.query))
        k = torch.stack(
            [self.projected("K", self.stream(self.all_tokens(), p)) for p in self.keys]
        )
        scores = torch.einsum("bne,pve->bnpv", q, k) / self.block.attn.divisor
        if not self.several:
            return scores[:, :, 0]
        self.lowest(scores.amin(2))
        self.highest(scores.amax(2))
        return scores


class OV(Circuit):
    """What a head that attends to a token alone adds to the logits: [batch, length] to [batch, length, d_vocab].

    Its final layer norm is left out but for what is linear in it (centring, and its weights): it divides all logits of
    an input by the same number.
    """

    def __init__(self, model: Rebuilt, layer: int, head: int, position: int | None):
        super().__init__(model, layer, head)
        self.key = self.position(position)

    def forward(self, ids: Tensor) -> Tensor:
        out, norm = self.block.attn.W_O[self.head], self.model.ln_final
        if isinstance(norm, Norm):
            out = norm.without_scale(out)
        v = self.projected("V", self.stream(ids, self.key))
        return v @ (
            out @ self.model.unembed.W_U
        )  # once for all tokens: [d_head, d_vocab]


class Direct(Circuit):
    """The logits that the embedding alone gives: [batch, length] to [batch, length, d_vocab]."""

    def __init__(self, model: Rebuilt, position: int | None):
        super().__init__(model)
        self.at = self.position(position)

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.unembed(self.model.ln_final(self.stream(ids, self.at)))
