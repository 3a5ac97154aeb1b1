"""Weights that people have, as plain torch modules whose sites read as the field's names."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mechverify.graph.adapters import gpt2, pair_mlp, transformer_lens
from mechverify.graph.adapters.modules import Adapted
from mechverify.graph.source import CaptureError

FORMATS = (transformer_lens, gpt2, pair_mlp)


def load(path: str | Path, **settings: Any) -> Adapted:
    """The module of a safetensors file; `settings` as `adapt` takes them. Raises CaptureError."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        hint = "write weights with safetensors.torch.save_file"
        raise CaptureError(
            f"can't read {path} as safetensors: {error}; {hint}"
        ) from error
    return adapt(state, **settings)


def adapt(state: Mapping[str, Tensor], **settings: Any) -> Adapted:
    """The module of a state dict, its format recognised by its names. `settings` are what names and shapes don't tell
    (transformer_lens.adapt, gpt2.adapt). Raises CaptureError, naming every tensor that doesn't fit."""
    for form in FORMATS:
        if form.recognises(state):
            known = [
                name
                for name in inspect.signature(form.adapt).parameters
                if name != "state"
            ]
            if unknown := sorted(settings.keys() - set(known)):
                what = f"no setting {', '.join(unknown)}: {', '.join(known) or 'none'}"
                raise CaptureError(
                    f"files with these names ({form.__name__.rsplit('.', 1)[1]}) take {what}"
                )
            return form.adapt(state, **settings)
    raise CaptureError(
        f"unknown names of tensors ({', '.join(sorted(state)[:5])}, ...): known are state dicts of TransformerLens and "
        "of Hugging Face GPT-2; load others into their own torch module and capture that"
    )
