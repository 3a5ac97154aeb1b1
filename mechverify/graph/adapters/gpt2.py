"""State dicts of Hugging Face GPT-2 (GPT2LMHeadModel): transformer.h.0.attn.c_attn.weight, laid out [in, out]."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mechverify.graph.adapters import transformer_lens
from mechverify.graph.adapters.modules import Adapted
from mechverify.graph.source import CaptureError

_NAMES = {
    "wte.weight": "embed.W_E", "wpe.weight": "pos_embed.W_pos", "ln_f.weight": "ln_final.w", "ln_f.bias": "ln_final.b",
    "ln_1.weight": "ln1.w", "ln_1.bias": "ln1.b", "ln_2.weight": "ln2.w", "ln_2.bias": "ln2.b",
    "mlp.c_fc.weight": "mlp.W_in", "mlp.c_fc.bias": "mlp.b_in",
    "mlp.c_proj.weight": "mlp.W_out", "mlp.c_proj.bias": "mlp.b_out", "attn.c_proj.bias": "attn.b_O",
}  # fmt: skip


def recognises(state: Mapping[str, Tensor]) -> bool:
    return any(name.removeprefix("transformer.") == "wte.weight" for name in state)


def adapt(
    state: Mapping[str, Tensor],
    *,
    n_heads: int | None = None,
    act_fn: str = "gelu_new",
    eps: float = 1e-5,
) -> Adapted:
    """`n_heads` isn't in the file; `act_fn` and `eps` are GPT-2's unless said otherwise. The weights get the names of
    TransformerLens, the same numbers: its own processing (folding, centring) is not done. Raises CaptureError."""
    if n_heads is None:
        raise CaptureError(
            "n_heads is needed: names and shapes of GPT-2 don't tell the number of heads"
        )
    out: dict[str, Tensor] = {}
    for full, tensor in state.items():
        name = full.removeprefix("transformer.")
        block = re.match(r"h\.(\d+)\.", name)
        prefix, inner = (
            (f"blocks.{block[1]}.", name[block.end() :]) if block else ("", name)
        )
        if re.fullmatch(r"attn\.(bias|masked_bias)", inner):
            if tensor.ndim >= 2 and not bool(
                ((tensor != 0) == torch.ones(tensor.shape[-2:]).tril().bool()).all()
            ):
                raise CaptureError(
                    f"{full} is no causal mask, as GPT-2 has it: capture your own module"
                )
            continue
        if inner in ("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight"):
            width = (
                tensor.shape[0]
                if inner == "attn.c_proj.weight"
                else tensor.shape[-1] // 3
            )
            if width % n_heads:
                raise CaptureError(
                    f"n_heads={n_heads} doesn't divide the width {width} of {full}"
                )
            if inner == "attn.c_proj.weight":
                out[f"{prefix}attn.W_O"] = tensor.reshape(n_heads, -1, tensor.shape[1])
                continue
            for letter, part in zip("QKV", tensor.chunk(3, -1), strict=True):
                if tensor.ndim == 1:
                    out[f"{prefix}attn.b_{letter}"] = part.reshape(n_heads, -1)
                else:
                    out[f"{prefix}attn.W_{letter}"] = part.reshape(
                        len(part), n_heads, -1
                    ).transpose(0, 1)
        elif inner == "lm_head.weight":
            out["unembed.W_U"] = tensor.T
        else:
            out[prefix + _NAMES.get(inner, inner)] = tensor
    tied = "unembed.W_U" not in out
    if tied and "embed.W_E" in out:
        out["unembed.W_U"] = out["embed.W_E"].T
    if "ln_final.w" not in out:
        raise CaptureError("ln_f.weight is missing: GPT-2 has layer norms")
    adapted = transformer_lens.adapt(out, act_fn=act_fn, eps=eps, normalization="LN")
    return Adapted(
        adapted.module, adapted.example, adapted.flags | {"unembedding_tied": tied}
    )
