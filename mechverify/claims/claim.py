"""The claims by their names; each is a module of its own."""

from mechverify.claims.accuracy import Accuracy
from mechverify.claims.bounds import Bounds, Cases, Holds, Within
from mechverify.claims.share import WITHIN, Share

__all__ = ["WITHIN", "Accuracy", "Bounds", "Cases", "Holds", "Share", "Within"]
