"""A network of two tokens."""

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.graph import Graph


def pair_mlp(graph: Graph, weights: dict[str, np.ndarray]) -> dict[str, int]:
    """A network of two tokens a, b without biases; returns its sites, by name, as node ids.

    logits = relu([W_x[a], W_y[b]] W) W_U. Shapes: W_x [vocab, d], W_y [vocab, e], W [d + e, hidden], W_U [hidden, out].
    Raises Rejected, saying what doesn't fit.
    """
    shapes = {name: a.shape for name, a in weights.items()}
    matrices = all(len(s) == 2 and min(s) > 0 for s in shapes.values())
    if set(shapes) != {"W_x", "W_y", "W", "W_U"} or not matrices:
        raise Rejected(
            f"weights don't fit the architecture: expected matrices W_x, W_y, W, W_U; got {shapes}"
        )
    (v, d), (u, e) = shapes["W_x"], shapes["W_y"]
    (both, hidden), (inner, _) = shapes["W"], shapes["W_U"]
    if v != u or d + e != both or hidden != inner or graph.length != 2:
        raise Rejected(
            f"weights don't fit the architecture, on {graph.length} tokens: {shapes}"
        )

    def weight(name: str) -> int:
        return graph.add("weight", attr=(name, shapes[name]))

    sites = {"tokens": graph.add("tokens")}
    for i, c in enumerate("xy"):
        token = graph.add("select", sites["tokens"], attr=(0, i))
        sites[f"embed_{c}"] = graph.add("gather", weight(f"W_{c}"), token)
    joint = graph.add("concat", sites["embed_x"], sites["embed_y"], attr=0)
    sites["pre"] = graph.add("einsum", joint, weight("W"), attr="d,dm->m")
    sites["hidden"] = graph.add("relu", sites["pre"])
    sites["logits"] = graph.add(
        "einsum", sites["hidden"], weight("W_U"), attr="m,mo->o"
    )
    return sites


ROWS = {"pair_mlp": pair_mlp}
