"""A captured graph as a certificate lists it: rows [operation, [operands], attribute] that refer to earlier ones."""

import numpy as np

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader
from mechverify.kernel.core.graph import Graph
from mechverify.kernel.core.loading import late
from mechverify.kernel.core.operations import LISTED, row_of

FLOATS = (
    "torch.float16",
    "torch.bfloat16",
    "torch.float32",
    "torch.float64",
)  # that a module may have been given in

PROGRAMS = {
    "float32": ("torch:float32",)
}  # axioms about programs of a captured module, by semantics


def captured(
    graph: Graph, weights: dict[str, np.ndarray], entry: Reader, shapes: list
) -> dict[str, int]:
    """Add a captured model's nodes, rows [op, [operands], attribute], and return its sites, names of nodes; the rows'
    own nodes are `graph.listed`."""
    ids: list[int] = []
    for row in entry["nodes"].items(2**16, 1):
        op, operands, attribute = row.items(3, 3)
        name = op.one_of(LISTED)
        args = operands.integers(2**12)
        attr = row_of(name).attribute.read(attribute)
        if not all(0 <= a < len(ids) for a in args):
            raise Rejected(f"an operand of {name!r} doesn't refer to an earlier node")
        if name == "weight" and (
            attr[0] not in weights or not _fits(attr[1], weights[attr[0]].shape)
        ):
            raise Rejected(
                f"the graph reads a tensor {attr[0]!r} of shape {attr[1]}, which the weights don't hold"
            )
        if name == "input" and (attr[0] >= len(shapes) or attr[1] != shapes[attr[0]]):
            raise Rejected(
                f"the graph reads input {attr[0]} of shape {attr[1]}; the domain's inputs are {shapes}"
            )
        ids.append(graph.add(name, *(ids[a] for a in args), attr=attr))
    graph.listed, sites = ids, {}
    for row in entry["sites"].items(2**16, 1):
        name, node = row.items(2, 2)
        if name.text() in sites:
            raise Rejected(f"{name.where}: two sites of one name")
        sites[name.text()] = ids[node.an_integer(0, len(ids) - 1)]
    replayed = entry["replayed"]
    replayed["inputs"].an_integer(0)
    replayed["difference"].number()
    replayed["module"].text()
    replayed.close()
    if "module" in entry.value:  # of claims about float32 programs
        late("core.programs").Module.read(entry["module"], len(ids))
    if "compared" in entry.value:  # not in files of earlier versions
        compared = entry["compared"]
        compared["dtype"].one_of(FLOATS)
        compared["inputs"].an_integer(0)
        compared["difference"].number()
        compared["tolerance"].number()
        compared.close()
    entry.close()
    return sites


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    return len(shape) == len(whole) and all(
        0 < a <= b for a, b in zip(shape, whole, strict=True)
    )
