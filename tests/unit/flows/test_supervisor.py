import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from flows import processes, supervisor
from lake.errors import TidemillError
from lake.settings import load_settings
from tests.ports import free_ports


@pytest.fixture
def home(tmp_path):
    return load_settings(home=tmp_path)


def test_a_port_in_use_names_its_holder_and_the_setting_that_moves_it(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        others = dict(zip(("s3_port", "gateway_port", "gateway_admin_port", "status_port"), free_ports(4), strict=True))
        with pytest.raises(TidemillError) as caught:
            supervisor._require_free_ports(load_settings(home=tmp_path, prefect_port=port, **others))
    assert str(os.getpid()) in caught.value.got
    assert "TIDEMILL_PREFECT_PORT" in caught.value.remedy


def test_a_full_disk_is_told_before_anything_starts(home, monkeypatch):
    monkeypatch.setattr(psutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(TidemillError, match="free some space, or set TIDEMILL_HOME"):
        supervisor._prepare_home(home)


def test_an_external_store_is_not_started(tmp_path):
    names = [
        process.name for process in processes.services(load_settings(home=tmp_path, s3_endpoint_url="http://s3.test"))
    ]
    assert names == ["prefect", "gateway", "status"]


def test_the_webhook_runs_where_a_port_is_set_for_it(tmp_path):
    assert "webhook" not in [process.name for process in processes.services(load_settings(home=tmp_path))]
    webhook = processes.services(load_settings(home=tmp_path, webhook_port=9500))[-1]
    assert (webhook.name, webhook.url, webhook.health_path) == ("webhook", "http://127.0.0.1:9500", "/healthz")
    moved = processes.services(load_settings(home=tmp_path, webhook_port=9500, webhook_host="10.0.0.5"))[-1]
    assert moved.url == "http://10.0.0.5:9500"
    everywhere = processes.services(load_settings(home=tmp_path, webhook_port=9500, webhook_host="0.0.0.0"))[-1]
    assert everywhere.url == "http://127.0.0.1:9500"  # where its health is asked


def test_the_status_page_is_where_its_port_says(tmp_path):
    status = next(p for p in processes.services(load_settings(home=tmp_path, status_port=9600)) if p.name == "status")
    assert (status.url, status.health_path, status.port_setting) == (
        "http://127.0.0.1:9600",
        "/healthz",
        "TIDEMILL_STATUS_PORT",
    )


def test_the_webhook_answers_before_the_store_is_asked(tmp_path, monkeypatch):
    done = []
    for name in ("_prepare_home", "_require_free_ports", "_end_strays", "_start_arbiter"):
        monkeypatch.setattr(supervisor, name, lambda *_: None)
    monkeypatch.setattr(supervisor, "_start", lambda _, wanted: None)
    monkeypatch.setattr(supervisor, "_wait", lambda _, process, told: done.append(process.name))
    monkeypatch.setattr(supervisor, "_open_store", lambda *_: done.append("the store is open"))
    monkeypatch.setattr(supervisor, "deploy", lambda _: "")
    supervisor.up(load_settings(home=tmp_path, webhook_port=9500), lambda *_: None)
    assert done == ["storage", "webhook", "the store is open", "prefect", "gateway", "status"]


def test_everything_listens_on_loopback(home):
    for process in processes.services(home):
        assert process.url is None or process.url.startswith("http://127.0.0.1:")
    storage, prefect, *_ = processes.services(home)
    for process in (storage, prefect):
        assert process.command[process.command.index("--host") + 1] == "127.0.0.1"


def test_secrets_are_passed_by_the_environment_alone(tmp_path):
    home = load_settings(home=tmp_path, webhook_port=9500, webhook_secret="wh-x")
    for process in processes.services(home):
        assert "wh-x" not in " ".join(process.command)
        assert home.secret_access_key not in " ".join(process.command)
        assert home.gateway_api_key not in " ".join(process.command)


def test_strays_of_this_installation_are_ended_and_no_others(home, tmp_path):
    def sleeper(mark):
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, **mark})

    ours, foreign = sleeper({processes.MARK: str(home.home)}), sleeper({processes.MARK: str(tmp_path / "other")})
    try:
        time.sleep(0.3)
        supervisor._end_strays(home)
        assert not psutil.pid_exists(ours.pid)
        assert foreign.poll() is None
    finally:
        for process in (ours, foreign):
            process.kill()
            process.wait()


def test_nothing_runs_in_a_fresh_home(home):
    assert {process.state for process in supervisor.status(home)} == {"stopped"}
    supervisor.down(home, lambda *_: None)  # harmless
