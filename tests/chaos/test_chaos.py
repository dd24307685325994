"""A few kill points of each cheap kind, always the same ones. `make chaos` plays some two hundred of all kinds."""

from __future__ import annotations

import logging
import time

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.points import Outcome, subset
from tests.chaos.report import in_words

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
SEED = 20_26
# A busy machine plays fewer points, not longer.
AT_MOST_S = 75.0


def tell(outcome: Outcome) -> None:
    logging.getLogger("chaos").info(in_words(outcome))


def test_nothing_is_lost_doubled_or_read_half() -> None:
    with Campaign() as played:
        outcomes = played.play(subset(SEED), tell, time.monotonic() + AT_MOST_S)
    found = [f"seed {SEED}, {outcome.point}: {each}" for outcome in outcomes for each in outcome.violations]
    assert found == []
    assert sum(outcome.fired for outcome in outcomes) >= 5
