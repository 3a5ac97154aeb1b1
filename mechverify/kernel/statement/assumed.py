"""What a theorem about a known architecture assumes of your model."""

# What the formulas say and weights can't show: a theorem about a file is one about your model if these hold of it.
_TRANSFORMER = (
    "no layer norm, and none folded into the weights",
    "attention scores are divided by sqrt(d_head)",
    "attention is causal and sees all earlier positions",
    "position embeddings are added to the token embeddings, once",
)
ASSUMED: dict[str, tuple[str, ...]] = {
    "transformer": _TRANSFORMER,
    "transformer_relu": (
        *_TRANSFORMER,
        "the activation is ReLU",
        "an MLP reads the residual after its block's attention",
    ),
    "pair_mlp": ("the activation is ReLU", "no biases"),
}
