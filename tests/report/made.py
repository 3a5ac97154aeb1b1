"""Certificates that reports are made of, small and made by hand: of each kind, and hostile ones."""

from pathlib import Path

import numpy as np

from mechverify.kernel import check
from mechverify.report import samples
from mechverify.report.checked import Checked
from tests.models import as_bytes, max_weights
from tests.soundness import forge, networks
from tests.soundness.networks import Network, constant, given

FOLD = {"rule": "fold", "keys": [], "only": None, "cells": []}
LINEAR = {"rule": "relaxation", "lines": None}
HOSTILE = [
    "<script>document.title='taken'</script>",
    "</style></title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "$\\frac{$",
    "]]>--><!--",
    "\\input{/etc/passwd}",
]


def checked(data: bytes, name: str = "some.cert") -> Checked:
    return Checked(Path(name), check(data), 0.25, data)


def accuracy(wrong: bool = True, proof: dict = FOLD) -> bytes:
    """Of the maximum of three tokens of six; with wrong inputs, if there are any."""
    data = as_bytes(max_weights(np.random.default_rng(11), noise=0.08))
    if not wrong:
        return forge.file(forge.document(data, proof), data)
    claim = check(forge.file(forge.document(data, proof), data)).claim
    every = samples.Inputs(claim.domain.inputs(0, claim.domain.size), np.zeros((claim.domain.size, 0)))
    wrong_ones = every.tokens[samples.entries(claim, every)[:, 0] < -1e-6][:3]
    both = {"rule": "both", "first": proof, "second": {"rule": "counterexample", "inputs": wrong_ones.tolist()}}
    return forge.file(forge.document(data, both), data)


NET = Network(
    [given(2), ["relu", [0], None], constant([1.0, -2.0]), ["mul", [1, 2], None]],
    {}, [(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))], [], 0,
)  # fmt: skip


def bounds(verdict: str = "BOUNDED", **settings) -> bytes:
    points = {"rule": "point", "inputs": [[[], [(0.5).hex(), (0.75).hex()]], [[], [(1.0).hex(), (-0.5).hex()]]]}
    proof = {"rule": "both", "first": LINEAR, "second": points}
    wanted = {"low": [-0.5, -2.5], "high": [1.5, 0.5], "n": 2, "verdict": verdict} | settings
    return networks.file(*networks.document(NET, proof, **wanted))


def refuted() -> bytes:
    return bounds("REFUTED", at_most="1/4", low=None, high=None)
