"""Running and capturing graphs, outside the kernel.

The expression graph itself, its legality table and the known architectures live in `mechverify.kernel`
(graph.py, architectures.py): what a theorem speaks of has to be trusted. Capture of any torch module by
`torch.export` will be `capture.py` here; readers of other weight formats will be `adapters/`.
"""
