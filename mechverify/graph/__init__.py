"""Running and capturing graphs, outside the kernel.

The expression graph itself, its table of operations and the known architectures live in `mechverify.kernel`
(graph.py, architectures/): what a theorem speaks of has to be trusted. `capture.py` reads any small torch module,
`adapters/` the weights files that people have.
"""
