"""Small models for tests: hand-built or random weights in the field's names, as safetensors bytes."""

import numpy as np
from safetensors.numpy import save


def random_weights(
    rng: np.random.Generator, *, vocab=4, length=3, d=3, e=2, heads=1, layers=1, scale=1.0, biases=True, out=None, mlp=0
) -> dict[str, np.ndarray]:
    def normal(*shape):
        return (rng.normal(size=shape) * scale).astype(np.float32)

    weights = {"embed.W_E": normal(vocab, d), "pos_embed.W_pos": normal(length, d)}
    for layer in range(layers):
        attn = f"blocks.{layer}.attn."
        weights |= {f"{attn}W_{c}": normal(heads, d, e) for c in "QKV"} | {f"{attn}W_O": normal(heads, e, d)}
        if biases:
            weights |= {f"{attn}b_{c}": normal(heads, e) for c in "QKV"} | {f"{attn}b_O": normal(d)}
        if mlp:
            weights |= random_mlp(rng, d, mlp, layer=layer, scale=scale, biases=biases)
    weights["unembed.W_U"] = normal(d, out or vocab)
    if biases:
        weights["unembed.b_U"] = normal(out or vocab)
    return weights


def random_mlp(rng: np.random.Generator, d: int, m: int, *, layer=0, scale=1.0, biases=True) -> dict[str, np.ndarray]:
    shapes = {"W_in": (d, m), "W_out": (m, d)} | ({"b_in": (m,), "b_out": (d,)} if biases else {})
    return {f"blocks.{layer}.mlp.{n}": (rng.normal(size=s) * scale).astype(np.float32) for n, s in shapes.items()}


def max_weights(rng: np.random.Generator, *, vocab=6, length=3, noise=0.12, slope=4.0) -> dict[str, np.ndarray]:
    """A hand-built max-of-k model: attention grows with the token, the value path copies it; then noise."""
    d = vocab + 1
    embed = np.concatenate([np.eye(vocab), np.ones((vocab, 1))], 1)
    query, key = np.zeros((1, d, vocab)), np.zeros((1, d, vocab))
    query[0, -1, 0] = 1.0
    key[0, :vocab, 0] = slope * np.arange(vocab)
    value = np.zeros((1, d, vocab))
    value[0, :vocab] = np.eye(vocab)
    output = np.zeros((1, vocab, d))
    output[0, :, :vocab] = 4 * np.eye(vocab)
    unembed = np.concatenate([np.eye(vocab), np.zeros((1, vocab))], 0)
    weights = {
        "embed.W_E": embed, "pos_embed.W_pos": np.zeros((length, d)), "blocks.0.attn.W_Q": query,
        "blocks.0.attn.W_K": key, "blocks.0.attn.W_V": value, "blocks.0.attn.W_O": output, "unembed.W_U": unembed,
    }  # fmt: skip
    return {k: (v + noise * rng.normal(size=v.shape)).astype(np.float32) for k, v in weights.items()}


def as_bytes(weights: dict[str, np.ndarray]) -> bytes:
    return save({k: np.ascontiguousarray(v) for k, v in weights.items()})


def as_float64(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float64) for k, v in weights.items()}
