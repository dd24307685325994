"""What many tests need: a real S3 server, settings that point at it, an empty bucket, a migrated ledger.

The ledger is in SQLite, or where `database_url` puts it.
"""

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
from tests.postgresql import NOT_INSTALLED, PostgreSQL, binaries, postgresql
from tests.s3 import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, nanio, versitygw

# The same examples in every run, none kept in the checkout, and no limit on the time of one: machines are busy.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def nanio_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an S3 server that all tests of the session share. Each takes a bucket of its own."""
    with nanio(tmp_path_factory.mktemp("s3")) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A PostgreSQL server that all tests of the session share; its database `migrated` is one to copy."""
    programs = binaries()
    if programs is None:
        pytest.skip(NOT_INSTALLED)
    with postgresql(programs) as server:
        opened = Ledger(load_settings(database_url=server.create("migrated")))
        opened.migrate()
        opened.engine.dispose()
        yield server


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Where the settings put the ledger. Parametrized with `postgresql`: a database of this test's own."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield None
        return
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    database = f"test-{uuid.uuid4().hex[:12]}"
    # Copying is ten times faster than migrating.
    yield server.create(database, "migrated" if "ledger" in request.fixturenames else "template0")
    server.drop(database)


@pytest.fixture(scope="session")
def versitygw_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a second S3 server of another make, shared likewise. Skips with the reason where it cannot be built."""
    with versitygw(tmp_path_factory.mktemp("versitygw")) as url:
        yield url


@pytest.fixture
def store_url(nanio_url: str) -> str:
    """URL of the store that a test's installation uses. A module overrides it to run on another, or on several."""
    return nanio_url


@pytest.fixture
def settings(store_url: str, database_url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation of this test's own: home, bucket name and ports. Nothing of the caller's `TIDEMILL_*` leaks in."""
    for name in [name for name in os.environ if name.startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
    prefect_port, gateway_port, gateway_admin_port, status_port = free_ports(4)
    return load_settings(
        home=tmp_path / "home",
        bucket=f"test-{uuid.uuid4().hex[:12]}",
        s3_endpoint_url=store_url,
        s3_access_key_id=ACCESS_KEY_ID,
        s3_secret_access_key=SECRET_ACCESS_KEY,
        s3_region=REGION,
        database_url=database_url,
        prefect_port=prefect_port,
        gateway_port=gateway_port,
        gateway_admin_port=gateway_admin_port,
        status_port=status_port,
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
def unmigrated(settings: Settings) -> Iterator[Ledger]:
    """The settings' ledger in a database without a table."""
    opened = Ledger(settings)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    """The settings' ledger, migrated to the newest revision."""
    opened = Ledger(settings)
    opened.migrate()
    yield opened
    opened.engine.dispose()
