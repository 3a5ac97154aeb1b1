"""Known architectures: the kernel builds the graph from the weights' names and shapes itself, so that no axiom
`capture` is needed.
"""

from collections.abc import Callable

from mechverify.kernel.core.loading import Rows

GROUPS = {"transformer": ("transformer", "transformer_relu"), "pair": ("pair_mlp",)}
# Of a graph without nodes and of the weights: adds the nodes, and returns the sites, by name.
ARCHITECTURES: Rows[Callable[..., dict[str, int]]] = Rows("core.architectures", GROUPS)
