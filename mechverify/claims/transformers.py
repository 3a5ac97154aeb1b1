"""Transformers in the field's names: their sites on sequences, and their circuits between tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mechverify.claims.errors import ClaimError
from mechverify.claims.model import CapturedModel, Site, capture, path_of
from mechverify.claims.showing import Shown
from mechverify.graph import adapters
from mechverify.graph.adapters import circuits
from mechverify.graph.adapters.modules import Rebuilt
from mechverify.graph.source import CaptureError


@dataclass(frozen=True, repr=False)
class LoadedTransformer(Shown):
    """`model["blocks.0.attn.attn_scores"][0, -1, 2]` is an entry of a site on sequences of `length` tokens; `qk`, `ov`
    and `direct` are circuits between tokens (graph/adapters/circuits.py). A circuit is a site of its own that says
    something of every token of a domain of `length` tokens: `model.qk(0, 1)[0]` of its first one."""

    module: Rebuilt
    flags: dict[str, Any]
    name: str
    length: int

    def described(self) -> list[tuple[str, str]]:
        settings = ", ".join(f"{k} {v}" for k, v in self.flags.items())
        return [("model", f"{self.name} on {self.length} tokens"), ("has", settings)]

    @property
    def d_vocab(self) -> int:
        return self.flags["d_vocab"]

    @property
    def n_ctx(self) -> int:
        return self.flags["n_ctx"]

    @cached_property
    def captured(self) -> CapturedModel:
        """On sequences of `length` tokens."""
        return self._captured(self.module, self.length, self.name)

    @property
    def sites(self) -> tuple[str, ...]:
        return self.captured.sites

    @property
    def logits(self) -> Site:
        return self["logits"]

    def __getitem__(self, name: str) -> Site:
        """TransformerLens's `hook_` prefixes may be kept or left out."""
        return self.captured[name.replace("hook_", "")]

    def qk(
        self, layer: int, head: int, *, query: int | None = None, key: int | Sequence[int] | None = None,
        length: int = 1,
    ) -> Site:  # fmt: skip
        """The score that each of `length` query tokens gives to every key token, as `blocks.0.attn.attn_scores` has it:
        biases and scale are in it. `query` and `key` are positions; None leaves their embeddings out. Shape [length,
        d_vocab]; where `key` lists positions, [length, keys, d_vocab], and `.captured["lowest"]` and `["highest"]` are
        the extremes over them, [length, d_vocab]. Raises ClaimError."""
        circuit = self._made(lambda: circuits.QK(self.module, layer, head, query, key))
        return self._site(
            circuit, length, f"QK of blocks.{layer}, head {head}", query=query, key=key
        )

    def ov(
        self, layer: int, head: int, *, position: int | None = None, length: int = 1
    ) -> Site:
        """What a head that attends to a token alone, at `position`, adds to the logits, for each of `length` tokens:
        [length, d_vocab]. The scale of a final layer norm is left out. Raises ClaimError."""
        circuit = self._made(lambda: circuits.OV(self.module, layer, head, position))
        return self._site(
            circuit, length, f"OV of blocks.{layer}, head {head}", position=position
        )

    def direct(self, *, position: int | None = None, length: int = 1) -> Site:
        """The logits that the embedding of each of `length` tokens gives by itself: [length, d_vocab]. Raises
        ClaimError."""
        circuit = self._made(lambda: circuits.Direct(self.module, position))
        return self._site(circuit, length, "the direct path", position=position)

    def _made(self, circuit: Callable[[], nn.Module]) -> nn.Module:
        try:
            return circuit().eval()
        except CaptureError as error:
            raise ClaimError(f"{self.name}: {error}") from None

    def _site(
        self, circuit: nn.Module, length: int, what: str, **positions: Any
    ) -> Site:
        where = [f", {k} {_shown(v)}" for k, v in positions.items() if v is not None]
        name = f"{what}{''.join(where)}, of {self.name}"
        return self._captured(circuit, length, name)["output"]

    def _captured(self, module: nn.Module, length: int, name: str) -> CapturedModel:
        example = torch.zeros(1, length, dtype=torch.long)
        return replace(capture(module, example, vocab=self.d_vocab), source=name)


def load(
    weights: str | Path, *, length: int | None = None, **settings: Any
) -> LoadedTransformer:
    """A transformer from a safetensors file in the names of TransformerLens or GPT-2, whose sites are read on sequences
    of `length` tokens (as many as it has positions). `settings` are what the file doesn't tell: normalization, act_fn,
    n_heads, ... Raises ClaimError, naming all that is missing or doesn't fit."""
    try:
        adapted = adapters.load(path_of(weights), **settings)
    except CaptureError as error:
        raise ClaimError(f"{weights}: {error}") from None
    if not isinstance(adapted.module, Rebuilt):
        raise ClaimError(f"{weights}: not a transformer; say pair_mlp(weights)")
    longest = adapted.flags["n_ctx"]
    if length is not None and not 1 <= length <= longest:
        raise ClaimError(f"length={length}: the model has {longest} positions")
    return LoadedTransformer(
        adapted.module, adapted.flags, Path(weights).name, length or longest
    )


def _shown(position: int | Sequence[int]) -> str:
    if not isinstance(position, Sequence):
        return str(position)
    consecutive = list(position) == list(range(position[0], position[-1] + 1))
    return (
        f"{position[0]} to {position[-1]}"
        if consecutive
        else ", ".join(map(str, position))
    )
