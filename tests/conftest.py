"""What many tests need: a real S3 server, settings that point at it, an empty bucket, a migrated ledger."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from lake.bucket import Bucket, BucketAddress
from lake.ledger import Ledger
from lake.settings import Settings, load_settings
from tests.ports import free_port_block, free_ports
from tests.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, nanio

# The same examples in every run, none kept in the checkout, and no limit on the time of one: machines are busy.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def nanio_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3 server that all tests of the session share. Each takes a bucket of its own."""
    with nanio(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture
def settings(nanio_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation of this test's own: home, bucket name and ports. Nothing of the caller's `TIDEMILL_*` leaks in."""
    for name in [name for name in os.environ if name.startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
    prefect_port, gateway_port, gateway_admin_port = free_ports(3)
    return load_settings(
        home=tmp_path / "home",
        bucket=f"test-{uuid.uuid4().hex[:12]}",
        s3_endpoint_url=nanio_url,
        s3_access_key_id=ACCESS_KEY_ID,
        s3_secret_access_key=SECRET_ACCESS_KEY,
        s3_region=REGION,
        prefect_port=prefect_port,
        gateway_port=gateway_port,
        gateway_admin_port=gateway_admin_port,
        replica_port_first=free_port_block(4),
        poll_interval_s=0.2,
        settle_s=0.0,
    )


@pytest.fixture
def bucket(settings: Settings) -> Bucket:
    """The settings' bucket, new and empty."""
    made = Bucket(BucketAddress.of(settings))
    made.ensure(create=True)
    return made


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """The settings' ledger: SQLite in the home, migrated to the newest revision."""
    opened = Ledger(settings)
    opened.migrate()
    yield opened
    opened.engine.dispose()
