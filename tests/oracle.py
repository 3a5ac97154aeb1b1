"""Judges that share no code with mechverify: transformers in ball arithmetic (python-flint), mechanisms
in plain Python. Slow, and meant for models of a few tokens."""

import json
from fractions import Fraction
from itertools import product

import numpy as np
from flint import arb, ctx

ctx.prec = 200


def _arb(x) -> arb:
    """A float64, exactly."""
    fraction = Fraction(float(x))
    return arb(fraction.numerator) / arb(fraction.denominator)


def _matrix(a: np.ndarray) -> list:
    return [_matrix(row) for row in a] if a.ndim > 1 else [_arb(x) for x in a]


class Transformer:
    """No layer norm, MLPs of ReLUs or none; `weights` are float64 arrays in TransformerLens names."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.w = {name: _matrix(value) for name, value in weights.items()}
        self.layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        self.heads, self.d, self.e = weights["blocks.0.attn.W_Q"].shape

    def logits(self, tokens, position: int) -> list[arb]:
        return self.sites(tokens, position)["logits"]

    def sites(self, tokens, position: int) -> dict[str, list[arb]]:
        """Row `position` of the logits, and of the sites of the last block."""
        w, found = self.w, {}
        x = [_add(w["embed.W_E"][t], w["pos_embed.W_pos"][i]) for i, t in enumerate(tokens)]
        for layer in range(self.layers):
            attn = f"blocks.{layer}.attn."
            new = []
            for j in range(position if layer == self.layers - 1 else 0, position + 1):
                out = list(x[j])
                for h in range(self.heads):
                    q, k, v = (
                        [self._affine(row, f"{attn}W_{c}", f"{attn}b_{c}", h) for row in x[: j + 1]] for c in "QKV"
                    )
                    scores = [_dot(q[j], key) / arb(self.e).sqrt() for key in k]
                    factors = [s.exp() for s in scores]
                    total = sum(factors, arb(0))
                    for factor, value in zip(factors, v, strict=True):
                        for e in range(self.e):
                            for c in range(self.d):
                                out[c] += factor / total * value[e] * w[f"{attn}W_O"][h][e][c]
                if f"{attn}b_O" in w:
                    out = _add(out, w[f"{attn}b_O"])
                found = {f"blocks.{layer}.resid_mid": out}
                new.append(self._after(out, f"blocks.{layer}.", found))
            x = new
        return found | {"logits": self._times(x[-1], "unembed.W_U", "unembed.b_U")}

    def _after(self, x, block: str, found: dict) -> list[arb]:
        """x + relu(x W_in + b_in) W_out + b_out, if there is such an MLP."""
        mlp = f"{block}mlp."
        if f"{mlp}W_in" not in self.w:
            return x
        found[f"{mlp}pre"] = pre = self._times(x, f"{mlp}W_in", f"{mlp}b_in")
        found[f"{mlp}post"] = post = [z.max(arb(0)) for z in pre]
        found[f"{block}mlp_out"] = out = self._times(post, f"{mlp}W_out", f"{mlp}b_out")
        found[f"{block}resid_post"] = _add(x, out)
        return found[f"{block}resid_post"]

    def _times(self, row, weight: str, bias: str) -> list[arb]:
        result = [_dot(row, column) for column in zip(*self.w[weight], strict=True)]
        return _add(result, self.w[bias]) if bias in self.w else result

    def _affine(self, row, weight, bias, head):
        columns = zip(*self.w[weight][head], strict=True)
        result = [_dot(row, column) for column in columns]
        return _add(result, self.w[bias][head]) if bias in self.w else result


def _dot(a, b) -> arb:
    return sum((x * y for x, y in zip(a, b, strict=True)), arb(0))


def _add(a, b) -> list[arb]:
    return [x + y for x, y in zip(a, b, strict=True)]


def is_right(logits: list[arb], target: int, margin: arb | int = 0) -> bool | None:
    """Whether `target` is larger than every other by more than `margin`; None if 200 bits don't tell (in practice: an exact tie)."""
    if not 0 <= target < len(logits):
        return False
    margins = [logits[target] - x - margin for i, x in enumerate(logits) if i != target]
    if all(m > 0 for m in margins):
        return True
    return False if any(m < 0 for m in margins) else None


def evaluate(rows: list, ids, values) -> int:
    """A mechanism given as a certificate's rows, on token ids."""
    found: list[int] = []
    for op, operands, attribute in rows:
        a = [found[i] for i in operands]
        found.append(
            {
                "value": lambda: values[ids[attribute]],
                "integer": lambda: attribute,
                "sum": lambda: sum(a),
                "product": lambda: int(np.prod(np.array(a, dtype=object))),
                "max": lambda: max(a),
                "min": lambda: min(a),
                "kth_largest": lambda: sorted(a, reverse=True)[attribute - 1],
                "and": lambda: int(all(a)),
                "or": lambda: int(any(a)),
                "not": lambda: 1 - a[0],
                "eq": lambda: int(a[0] == a[1]),
                "lt": lambda: int(a[0] < a[1]),
                "le": lambda: int(a[0] <= a[1]),
                "mod": lambda: a[0] % attribute,
                "floordiv": lambda: a[0] // attribute,
                "where": lambda: a[1] if a[0] else a[2],
                "lookup": lambda: attribute[a[0]],
            }[op]()
        )
    return found[-1]


def truth(claim: dict, weights: dict[str, np.ndarray]) -> tuple[int, int]:
    """(fewest, most) right inputs of a claim document, by running every input; they differ by exact ties,
    which count as wrong: the truth is the first."""
    model = Transformer(weights)
    domain = claim["domain"]
    surely = open_ = 0
    for ids in product(*domain["tokens"]):
        verdict = is_right(model.logits(ids, claim["position"]), evaluate(claim["equals"], ids, domain["values"]))
        surely += verdict is True
        open_ += verdict is None
    return surely, surely + open_


def parse(certificate: bytes) -> dict:
    """certificate.json, found without the kernel's reader."""
    start = certificate.index(b"certificate.json") + len("certificate.json")
    size = int.from_bytes(certificate[22:26], "little")
    return json.loads(certificate[start : start + size])
