"""float32 programs for transformers without layer norm, with ReLU MLPs or none, written from docs/soundness/options.md (O1) alone: each performs the
formula operation by operation in numpy's float32, with its own order of every sum. No mechverify in here.

A `Program` is one such way: random permutations and trees of additions, fused or not, quotients or reciprocals,
subnormal results kept or flushed, numpy's exp or one that errs as far as the axiom `libm:float32` lets it.
"""

from dataclasses import dataclass, field

import numpy as np

TINY = np.float32(2.0**-126)  # the smallest normal number
AXIOM = 2.0**-21  # relative error of exp; and TINY
ORDERS = ("as written", "shuffled", "blocks", "tree")
EXPS = ("numpy", "up", "down", "scatter", "by position")
Weights = dict[str, np.ndarray]


@dataclass
class Program:
    rng: np.random.Generator
    order: str = "shuffled"
    fused: bool = False
    reciprocal: bool = False
    flush: bool = False
    joined: bool = False  # a bias is one of the terms of its sum, as in torch.addmm
    exp: str = "numpy"
    _signs: np.ndarray = field(init=False)

    def __post_init__(self):
        self._signs = self.rng.choice([-1.0, 1.0], 2048)

    # --- operations ---------------------------------------------------------------------------------------------------

    def _result(self, x: np.ndarray) -> np.ndarray:
        assert x.dtype == np.float32
        return np.where(np.abs(x) < TINY, np.float32(0), x) if self.flush else x

    def add(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._result(x + y)

    def multiply(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._result(x * y)

    def quotient(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.reciprocal:
            return self.multiply(x, self._result(np.float32(1) / y))
        return self._result(x / y)

    def multiply_add(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        if self.fused:  # exact in float64 but for the sum; rounded to float32 at the end
            return self._result((x.astype(np.float64) * y + z).astype(np.float32))
        return self.add(self.multiply(x, y), z)

    def contract(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The sum over the first axis of the products, in this program's kind of order."""
        n = len(x)
        order = np.arange(n) if self.order == "as written" else self.rng.permutation(n)
        match self.order:
            case "tree":
                cuts = np.arange(1, n)
            case "blocks":
                cuts = np.flatnonzero(self.rng.random(n - 1) < self.rng.choice([0.1, 0.3, 0.6])) + 1
            case _:
                cuts = np.arange(0)
        parts = []
        for block in np.split(order, cuts):
            total = self.multiply(x[block[0]], y[block[0]])
            for i in block[1:]:
                total = self.multiply_add(x[i], y[i], total)
            parts.append(total)
        while len(parts) > 1:
            other = parts.pop(int(self.rng.integers(len(parts))))
            at = int(self.rng.integers(len(parts)))
            parts[at] = self.add(parts[at], other)
        return parts[0]

    def product(self, x: np.ndarray, matrix: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        """[..., n] times [n, m], plus [m]."""
        if bias is not None and not self.joined:
            return self.add(self.product(x, matrix), bias)
        if bias is not None:
            x = np.concatenate([np.ones((*x.shape[:-1], 1), np.float32), x], -1)
            matrix = np.concatenate([bias[None], matrix])
        rows = np.ascontiguousarray(np.moveaxis(x, -1, 0))[..., None]
        return self.contract(rows, matrix.reshape(len(rows), *(1,) * (x.ndim - 1), -1))

    def exponential(self, d: np.ndarray) -> np.ndarray:
        """Of numbers d <= 0 [position, ...]."""
        if self.exp == "numpy":
            return self._result(np.exp(d))
        sign = {"up": 1.0, "down": -1.0}.get(self.exp)
        if self.exp == "scatter":
            sign = self.rng.choice([-1.0, 1.0], d.shape)
        elif self.exp == "by position":
            sign = self._signs[: len(d)].reshape(-1, *(1,) * (d.ndim - 1))
        true = np.exp(d.astype(np.float64))
        limit = np.maximum(true + sign * (true * AXIOM + (0.0 if self.flush else float(TINY))), 0)
        wrong = limit.astype(np.float32)  # the float32 number next to the axiom's limit, on its inner side
        beyond = np.where(true < limit, wrong > limit, wrong < limit)
        return self._result(np.where(beyond, np.nextafter(wrong, true.astype(np.float32)), wrong))

    def softmax(self, scores: np.ndarray) -> np.ndarray:
        """Over the first axis."""
        factors = self.exponential(self._result(scores - scores.max(0)))
        return self.quotient(factors, self.contract(factors, np.ones(len(factors), np.float32)))

    # --- the model ----------------------------------------------------------------------------------------------------

    def logits(self, weights: Weights, tokens: np.ndarray, position: int) -> np.ndarray:
        """Row `position` of the logits for ids [inputs, length]: float32 [inputs, out]."""
        with np.errstate(under="ignore"):
            return self._logits(weights, tokens, position)

    def _logits(self, weights: Weights, tokens: np.ndarray, position: int) -> np.ndarray:
        assert all(w.dtype == np.float32 for w in weights.values())
        n, layers = position + 1, layer_count(weights)
        at = np.arange(n)[:, None], tokens[:, :n].T
        table = self.add(weights["embed.W_E"][None], weights["pos_embed.W_pos"][:n, None])  # [position, token, d]
        rows = table[at]  # [position, input, d]
        for layer in range(layers):
            attn = f"blocks.{layer}.attn."
            heads, d, e = weights[f"{attn}W_Q"].shape
            source, read = (table, at) if layer == 0 else (rows, ...)  # each (position, token) once is enough
            q, k, v = (self._heads(source, weights, attn, c)[read] for c in "QKV")  # [position, input, head, e]
            root = np.float32(np.sqrt(np.float64(e)))
            first = position if layer == layers - 1 else 0
            after = []
            for j in range(first, n):
                keys = np.ascontiguousarray(np.moveaxis(k[: j + 1], -1, 0))  # [e, position, input, head]
                query = np.ascontiguousarray(np.moveaxis(q[j], -1, 0))[:, None]
                pattern = self.softmax(self.quotient(self.contract(query, keys), root))  # [position, input, head]
                z = self.contract(pattern[..., None], v[: j + 1])
                matrix = weights[f"{attn}W_O"].reshape(heads * e, d)
                out = self.product(z.reshape(len(tokens), heads * e), matrix, weights.get(f"{attn}b_O"))
                after.append(self.add(rows[j], out))
                if (mlp := f"blocks.{layer}.mlp.") + "W_in" in weights:
                    pre = self.product(after[-1], weights[f"{mlp}W_in"], weights.get(f"{mlp}b_in"))
                    post = np.maximum(pre, np.float32(0))
                    out = self.product(post, weights[f"{mlp}W_out"], weights.get(f"{mlp}b_out"))
                    after[-1] = self.add(after[-1], out)
            rows = np.stack(after)
        return self.product(rows[-1], weights["unembed.W_U"], weights.get("unembed.b_U"))

    def _heads(self, x: np.ndarray, weights: Weights, attn: str, letter: str) -> np.ndarray:
        matrix = weights[f"{attn}W_{letter}"]
        heads, d, e = matrix.shape
        bias = weights.get(f"{attn}b_{letter}")
        bias = None if bias is None else bias.reshape(-1)
        return self.product(x, matrix.transpose(1, 0, 2).reshape(d, heads * e), bias).reshape(*x.shape[:-1], heads, e)


def random_program(rng: np.random.Generator) -> Program:
    return Program(rng, str(rng.choice(ORDERS)), *(bool(b) for b in rng.integers(2, size=4)), exp=str(rng.choice(EXPS)))


def layer_count(weights: Weights) -> int:
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))


def is_right(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether output `target` is strictly larger than every other, for each row."""
    out = logits.shape[1]
    possible = (target >= 0) & (target < out)
    at = np.where(possible, target, 0)[:, None]
    others = np.where(np.arange(out) == at, -np.inf, logits).max(1)
    return possible & (np.take_along_axis(logits, at, 1)[:, 0] > others)


def plain(weights: Weights, tokens: np.ndarray, position: int) -> np.ndarray:
    """The logits as a careful notebook computes them: float64, numpy's own products and sums."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    n = position + 1
    x = w["embed.W_E"][tokens[:, :n]] + w["pos_embed.W_pos"][:n]
    for layer in range(layer_count(weights)):
        attn = f"blocks.{layer}.attn."
        q, k, v = (np.einsum("bnd,hde->bhne", x, w[f"{attn}W_{c}"]) + w.get(f"{attn}b_{c}", np.zeros((1, 1)))[:, None]
                   for c in "QKV")  # fmt: skip
        scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        pattern = np.exp(scores - scores.max(-1, keepdims=True))
        pattern /= pattern.sum(-1, keepdims=True)
        x = x + np.einsum("bhne,hed->bnd", pattern @ v, w[f"{attn}W_O"]) + w.get(f"{attn}b_O", 0.0)
        if (mlp := f"blocks.{layer}.mlp.") + "W_in" in w:
            post = np.maximum(x @ w[f"{mlp}W_in"] + w.get(f"{mlp}b_in", 0.0), 0.0)
            x = x + post @ w[f"{mlp}W_out"] + w.get(f"{mlp}b_out", 0.0)
    return x[:, position] @ w["unembed.W_U"] + w.get("unembed.b_U", 0.0)
