"""Settings of one installation: from `TIDEMILL_*` variables, built at the entry points and passed down."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from lake.errors import TidemillError

# sun_path of Linux holds 108 bytes with its final zero; the supervisor has a second, longer name beside the first.
MAX_SOCKET_PATH = 100


class Settings(BaseSettings):
    """All of it has defaults for one machine. Ports are on loopback; secrets are made once and kept in `home`."""

    model_config = SettingsConfigDict(env_prefix="TIDEMILL_", frozen=True)

    home: Path = Field(default=Path(".tidemill"), description="data directory: state, stores, logs")
    host: str = Field(default="127.0.0.1", description="address the gateway binds to")
    bucket: str = "tidemill"
    s3_endpoint_url: str | None = Field(default=None, description="unset: the embedded nanio server")
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = Field(default=None, repr=False)
    s3_region: str = "us-east-1"
    database_url: str | None = Field(default=None, repr=False, description="unset: SQLite in `home`")
    api_key: str | None = Field(
        default=None, repr=False, description="of the public endpoint; unset: made at first start"
    )
    s3_port: int = Field(default=9400, ge=1, le=65535)
    prefect_port: int = Field(default=4200, ge=1, le=65535)
    gateway_port: int = Field(default=8080, ge=1, le=65535)
    gateway_admin_port: int = Field(default=9901, ge=1, le=65535)
    target: Literal["local", "kubernetes"] = Field(
        default="local", description="where models are served: this machine, or a cluster (see docs/kubernetes.md)"
    )
    status_port: int = Field(default=8090, ge=1, le=65535, description="of the page that shows rollouts and alarms")
    replica_port_first: int = Field(default=3100, ge=1, le=65000)
    poll_interval_s: float = Field(default=1.0, gt=0)
    settle_s: float = Field(
        default=0.5,
        ge=0,
        description="a drop closes when nothing has arrived for so long; later objects wait for the next",
    )
    drop_max_wait_s: float = Field(
        default=120.0, ge=0, description="no object waits longer for its drop to close, however many go on arriving"
    )
    drop_max_objects: int = Field(default=100_000, ge=1, description="a drop of as many closes at once")
    drop_max_bytes: int = Field(default=50_000_000_000, ge=1, description="likewise, by the objects' size as stored")
    sqs_queue_url: str | None = Field(default=None, description="queue that the bucket's events go to; unset: none")
    sqs_endpoint_url: str | None = Field(default=None, description="of the queue's service; unset: AWS")
    webhook_port: int | None = Field(
        default=None, ge=1, le=65535, description="where stores post their events; unset: nowhere"
    )
    webhook_host: str = Field(default="127.0.0.1", description="address the webhook binds to")
    webhook_secret: str | None = Field(
        default=None, repr=False, description="that senders of events must know; unset: made at first use"
    )

    @property
    def embedded_s3(self) -> bool:
        return self.s3_endpoint_url is None

    @property
    def s3_url(self) -> str:
        return self.s3_endpoint_url or f"http://127.0.0.1:{self.s3_port}"

    @property
    def prefect_api_url(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}/api"

    @property
    def prefect_ui_url(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def status_url(self) -> str:
        return f"http://127.0.0.1:{self.status_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.host}:{self.gateway_port}"

    @property
    def supervisor_endpoint(self) -> str:
        """ZeroMQ address of circus. A Unix socket in `home`: whoever can talk to circus can start any command."""
        return f"ipc://{self.home}/run/supervisor.sock"

    @property
    def ledger_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home}/ledger.db"

    @cached_property
    def _kept_secrets(self) -> dict[str, str]:
        return _keep_secrets(self.home / "secrets.json")

    @property
    def access_key_id(self) -> str | None:
        """None on a foreign store without explicit keys: boto3's own credential chain applies."""
        return self.s3_access_key_id or (self._kept_secrets["s3_access_key_id"] if self.embedded_s3 else None)

    @property
    def secret_access_key(self) -> str | None:
        return self.s3_secret_access_key or (self._kept_secrets["s3_secret_access_key"] if self.embedded_s3 else None)

    @property
    def gateway_api_key(self) -> str:
        return self.api_key or self._kept_secrets["api_key"]

    @property
    def event_secret(self) -> str:
        """What the webhook asks of a sender."""
        return self.webhook_secret or _keep_webhook_secret(self.home / "secrets.json")

    def environment(self) -> dict[str, str]:
        """The `TIDEMILL_*` variables that give a child process these very settings."""
        shown = self.model_dump(mode="json", exclude_none=True)
        return {f"TIDEMILL_{name.upper()}": str(value) for name, value in shown.items()}


def load_settings(**overrides: object) -> Settings:
    """Build the settings with an absolute `home`. Raises TidemillError naming the variable that is wrong."""
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = f"TIDEMILL_{'_'.join(map(str, first['loc'])).upper()}"
        raise TidemillError(
            f"setting {name}",
            expected=first["msg"].lower(),
            got=repr(first.get("input")),
            remedy=f"correct or unset {name}",
        ) from error
    settings = settings.model_copy(update={"home": settings.home.expanduser().resolve()})
    if len(settings.supervisor_endpoint) > MAX_SOCKET_PATH:
        raise TidemillError(
            "setting TIDEMILL_HOME",
            expected=f"a path of at most {MAX_SOCKET_PATH - 25} characters, as it holds Unix sockets",
            got=str(settings.home),
            remedy="choose a shorter one",
        )
    return settings


def _keep_secrets(path: Path) -> dict[str, str]:
    """Read the secrets of an installation, which are made on the first call. Raises TidemillError with a remedy."""
    with _explained(path):
        if not path.exists():
            _make_secrets(path)
        kept = json.loads(path.read_text())
        return {name: str(kept[name]) for name in ("s3_access_key_id", "s3_secret_access_key", "api_key")}


def _keep_webhook_secret(path: Path) -> str:
    """It came later than the others: a file that an earlier version has made gets it when it is asked for."""
    _keep_secrets(path)
    with _explained(path), _alone_in(path.parent):
        kept = json.loads(path.read_text())
        if "webhook_secret" not in kept:
            kept["webhook_secret"] = _new_webhook_secret()
            with _written_beside(path, kept) as partial:
                os.replace(partial, path)
        return str(kept["webhook_secret"])


def _make_secrets(path: Path) -> None:
    made = {
        "s3_access_key_id": "tidemill",
        "s3_secret_access_key": secrets.token_hex(20),
        "api_key": f"tm-{secrets.token_hex(20)}",
        "webhook_secret": _new_webhook_secret(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may start at once: a link is made whole or not at all, the first one counts for both.
    with _written_beside(path, made) as partial, suppress(FileExistsError):
        os.link(partial, path)


def _new_webhook_secret() -> str:
    return f"wh-{secrets.token_hex(20)}"  # no character that a URL would have to escape: senders put it into one


@contextmanager
def _written_beside(path: Path, content: dict[str, str]) -> Iterator[str]:
    """A file with this content in the same folder, readable by its owner only. It goes at the end if it is still there."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=".secrets-")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        yield partial
    finally:
        Path(partial).unlink(missing_ok=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time, by a lock on the folder: a lock on a file would stay with what replaces it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TidemillError(
            str(path),
            expected="a file that can be read and written",
            got=str(error.strerror),
            remedy="give this user the rights to the folder, free its disk, or set TIDEMILL_HOME to another one",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TidemillError(
            str(path),
            expected="JSON with s3_access_key_id, s3_secret_access_key and api_key",
            got=f"{type(error).__name__}: {error}",
            remedy="restore the file, or remove it: new secrets are made, and clients need the new API key",
        ) from error
