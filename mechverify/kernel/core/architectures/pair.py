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
    if set(shapes) != {"W_x", "W_y", "W", "W_U"} or any(len(s) != 2 or not min(s) for s in shapes.values()):
        raise Rejected(f"weights don't fit the architecture: expected matrices W_x, W_y, W, W_U; got {shapes}")
    (v, d), (u, e), (both, hidden), (inner, _) = (shapes[name] for name in ("W_x", "W_y", "W", "W_U"))
    if v != u or d + e != both or hidden != inner or graph.length != 2:
        raise Rejected(f"weights don't fit the architecture, on {graph.length} tokens: {shapes}")
    sites = {"tokens": graph.add("tokens")}
    for i, c in enumerate("xy"):
        token = graph.add("select", sites["tokens"], attr=(0, i))
        sites[f"embed_{c}"] = graph.add("gather", graph.add("weight", attr=(f"W_{c}", shapes[f"W_{c}"])), token)
    joint = graph.add("concat", sites["embed_x"], sites["embed_y"], attr=0)
    sites["pre"] = graph.add("einsum", joint, graph.add("weight", attr=("W", shapes["W"])), attr="d,dm->m")
    sites["hidden"] = graph.add("relu", sites["pre"])
    unembed = graph.add("weight", attr=("W_U", shapes["W_U"]))
    sites["logits"] = graph.add("einsum", sites["hidden"], unembed, attr="m,mo->o")
    return sites


ROWS = {"pair_mlp": pair_mlp}
