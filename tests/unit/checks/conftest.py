from __future__ import annotations

import pytest

from lake.bucket import BucketAddress
from lake.settings import Settings


@pytest.fixture
def address(settings: Settings) -> BucketAddress:
    return BucketAddress.of(settings)
