"""`python -m tests.stand_in_controller`: the rollout controller as it is, serving `tests.upstream` in place of bentos."""

from __future__ import annotations

import sys

from bentos.controller import run
from bentos.replicas import Replicas
from bentos.targets.local import LocalTarget
from lake.settings import load_settings


def upstream_command(tag: str, port: int) -> list[str]:
    return [sys.executable, "-m", "tests.upstream", tag, str(port)]


if __name__ == "__main__":
    run(load_settings(), lambda settings: LocalTarget(settings, Replicas(settings, upstream_command)))
