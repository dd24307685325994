"""The ledger: what has arrived, what has been made of it, what is live. The truth next to the bucket's listing.

SQLite (WAL) by default, PostgreSQL by URL. Transactions on it take turns, and states move by compare-and-set, so that
two processes that want the same thing cannot both get it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from lake.ledger.alarms import Alarms
from lake.ledger.arrivals import Arrivals
from lake.ledger.drops import Drops
from lake.ledger.engine import explained, open_engine, shown
from lake.ledger.erasures import Erasures
from lake.ledger.experiments import Experiments
from lake.ledger.heartbeats import Heartbeats
from lake.ledger.leases import Leases
from lake.ledger.monitoring import DriftWindows
from lake.ledger.observations import RolloutLooks, RolloutObservations
from lake.ledger.rollouts import Rollouts
from lake.ledger.stages import Stages
from lake.ledger.taints import Taints
from lake.ledger.versions import Versions
from lake.ledger.wakeups import Wakeups
from lake.settings import Settings

__all__ = ["Ledger"]


class Ledger:
    """One connection pool and the books kept in it."""

    def __init__(self, settings: Settings) -> None:
        self.engine = open_engine(settings.ledger_url)
        self.wakeups = Wakeups(self.engine)
        self.arrivals = Arrivals(self.engine)
        self.drops = Drops(self.engine)
        self.heartbeats = Heartbeats(self.engine)
        self.stages = Stages(self.engine)
        self.versions = Versions(self.engine)
        self.rollouts = Rollouts(self.engine, settings.replica_port_first)
        self.experiments = Experiments(self.engine, self.rollouts)
        self.rollout_observations = RolloutObservations(self.engine)
        self.rollout_looks = RolloutLooks(self.engine)
        self.leases = Leases(self.engine)
        self.alarms = Alarms(self.engine)
        self.drift_windows = DriftWindows(self.engine)
        self.erasures = Erasures(self.engine)
        self.taints = Taints(self.engine)

    def migrate(self) -> None:
        """Bring the schema to the newest revision; a no-op when it is there. Raises TidemillError with a remedy."""
        with explained(shown(self.engine.url)), self.engine.begin() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def revision(self) -> tuple[str | None, str | None]:
        """The schema's revision and the newest one known to this code. Raises TidemillError with a remedy."""
        with explained(shown(self.engine.url)), self.engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        return current, ScriptDirectory.from_config(_alembic_config()).get_current_head()


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    return config
