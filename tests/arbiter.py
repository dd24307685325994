"""`python -m tests.arbiter`: the supervisor of an installation (TIDEMILL_HOME) with nothing to watch yet."""

from __future__ import annotations

from circus.arbiter import Arbiter

from lake.settings import load_settings


def main() -> None:
    settings = load_settings()
    (settings.home / "run").mkdir(parents=True, exist_ok=True)
    events = settings.supervisor_endpoint.replace(".sock", "-x.sock")
    Arbiter([], endpoint=settings.supervisor_endpoint, pubsub_endpoint=events, check_delay=1.0).start()


if __name__ == "__main__":
    main()
