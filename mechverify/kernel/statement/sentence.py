"""A theorem's sentence: everything that it depends on, as named parts that every other module only formats.

Numbers are exact, or rounded towards the weaker statement and said to be. Formulas are read off the graph. What the
file merely asserts stands apart. Nothing that a file calls itself or its parts can add a line or change one.
common.py has what both kinds of claims say, accuracy.py and ranges.py the rest: one is loaded when a theorem is of it.
"""

from types import ModuleType

from mechverify.kernel.core.claim import Theorem
from mechverify.kernel.core.kinds import KINDS
from mechverify.kernel.core.loading import late
from mechverify.kernel.statement.common import Statement
from mechverify.kernel.statement.formula import Listing


def state(theorem: Theorem) -> Statement:
    return _worded(theorem).state(theorem)


def listing(theorem: Theorem) -> Listing:
    """The nodes of the graph that the sentence speaks of, and all that they need; a mechanism's come first."""
    return _worded(theorem).listing(theorem)


def _worded(theorem: Theorem) -> ModuleType:
    """The module of the same name as the one that the kind of its claim has in core/."""
    name = KINDS.modules[theorem.claim.kind].rsplit(".", 1)[-1]
    return late(f"statement.{name}")
