"""Provers of claims that count, on boxes: parts of them."""
