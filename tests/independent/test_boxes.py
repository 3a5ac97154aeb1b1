"""The published schema and certificates of shares of a box."""

from mechverify import normal, uniform
from tests.independent.test_schema import VALIDATOR
from tests.soundness.test_boxes import proved


def test_the_schema_knows_shares_of_boxes():
    document, _ = proved(distribution=[uniform, normal("1/3", 2)])
    VALIDATOR.validate(document | {"cost": "1"})
    for change in ({"measure": [["1/3"], None]}, {"measure": 1}, {"strict": 1}):
        assert not VALIDATOR.is_valid(document | {"cost": "1", "claim": document["claim"] | change})
    assert not VALIDATOR.is_valid(document | {"cost": "1", "proof": {"rule": "relaxation", "to": 41}})
