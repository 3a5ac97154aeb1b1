"""Ranges that are never wider than what an operation's values can be: the examples, whatever method is asked for."""

import pytest

from benchmarks.campaigns.ranges import EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.what)
def test_an_example_is_as_it_should_be(example):
    assert example.run() == example.after
