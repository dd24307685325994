"""How a packaged model is started: the command, its environment, and a BentoML home for each replica."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lake.settings import Settings

# Requests in flight are finished after SIGTERM; what still streams by then is cut off. The controller drains a replica
# before it ends it, and its supervisor kills after 30 s: the rest is for writing the last prediction log.
DRAIN_TIMEOUT_S = 20
# Above Envoy's 4 s for idle upstream connections, so that it is never the server that closes first.
KEEP_ALIVE_S = 30


def replica_home(settings: Settings, model: str, version: str) -> Path:
    """Where one replica has its BentoML home: `<home>/replicas/<model>-<version>/bentoml`."""
    return settings.home / "replicas" / f"{model}-{version}" / "bentoml"


def link_stores(shared: Path, home: Path) -> None:
    """Make `home` a BentoML home of its own whose `models` and `bentos` are those of `shared`. Safe to repeat.

    Replicas that share one home would delete each other's Prometheus series: each clears the folder at its start.
    """
    home.mkdir(parents=True, exist_ok=True)
    for name in ("models", "bentos"):
        store = shared / name
        store.mkdir(parents=True, exist_ok=True)
        link = home / name
        if link.is_symlink() and link.readlink() == store:
            continue
        temporary = home / f".{name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(store)
        os.replace(temporary, link)


def serve_command(tag: str, port: int) -> list[str]:
    """Serve one bento of the store on loopback. SIGTERM drains, then flushes the prediction log, then ends with 0.

    The process that this starts supervises one worker, which it starts again should it die.
    """
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
    return [
        *command,
        "--timeout-keep-alive",
        str(KEEP_ALIVE_S),
        "--timeout-graceful-shutdown",
        str(DRAIN_TIMEOUT_S),
    ]


def serve_environment(settings: Settings, home: Path) -> dict[str, str]:
    """What `serve_command` needs beside the caller's own environment. `home` is the replica's BentoML home."""
    return {
        **settings.environment(),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        # No collector is configured: this makes the tracing middleware a no-op.
        "OTEL_SDK_DISABLED": "true",
        # glibc gives every thread an arena of its own, which would hold on to memory that buffers have left.
        "MALLOC_ARENA_MAX": "2",
    }
