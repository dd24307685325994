"""`tidemill up`, `status`, `doctor`, `down`, with everything real, and what a kill -9 of any process does."""

import json
import signal
import subprocess

import httpx
import psutil
import pytest

from tests.installation import TIDEMILL, ending_all, environment, processes_of, tidemill
from tests.servers import wait_until

pytestmark = pytest.mark.integration

PROCESSES = {"storage", "prefect", "gateway", "status", "controller", "serve", "worker-training", "worker-light"}


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    home = tmp_path_factory.mktemp("up") / "home"
    env = environment(home)
    with ending_all(home):
        done = tidemill(env, "up")
        assert done.returncode == 0, done.stdout + done.stderr
        yield env, home
        done = tidemill(env, "down")
        assert done.returncode == 0, done.stdout + done.stderr
        assert processes_of(home) == []


def running(env):
    return {row["name"]: row["pid"] for row in status(env) if row["state"] == "running"}


def status(env):
    return json.loads(tidemill(env, "status", "--json").stdout)


def test_everything_runs_and_the_doctor_finds_nothing(installation):
    env, _ = installation
    assert set(running(env)) == PROCESSES
    diagnosis = tidemill(env, "doctor")
    assert diagnosis.returncode == 0, diagnosis.stdout
    assert "8 deployments" in diagnosis.stdout


def test_the_endpoint_wants_a_key(installation):
    env, home = installation
    url = f"http://127.0.0.1:{env['TIDEMILL_GATEWAY_PORT']}/v1/models"
    assert httpx.get(url).status_code == 401
    key = json.loads((home / "secrets.json").read_text())["api_key"]
    assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}).json()["data"] == []


def test_up_again_changes_nothing(installation):
    env, _ = installation
    before = running(env)
    assert tidemill(env, "up").returncode == 0
    assert running(env) == before


@pytest.mark.parametrize("name", sorted(PROCESSES))
def test_a_killed_process_comes_back(installation, name):
    env, _ = installation
    killed = running(env)[name]
    psutil.Process(killed).send_signal(signal.SIGKILL)
    wait_until(f"{name} is back", lambda: running(env).get(name) not in (None, killed), timeout_s=60)
    if name == "prefect":
        wait_until("the server answers", lambda: tidemill(env, "runs").returncode == 0, timeout_s=90)


def test_up_after_a_killed_supervisor_starts_anew_without_doubles(installation):
    env, home = installation
    arbiter = next(process for process in processes_of(home) if "flows.supervisor" in process.cmdline())
    arbiter.send_signal(signal.SIGKILL)
    wait_until("the arbiter is gone", lambda: not arbiter.is_running() or arbiter.status() == psutil.STATUS_ZOMBIE)
    done = tidemill(env, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(running(env)) == PROCESSES
    servers = [process for process in processes_of(home) if "nanio" in " ".join(process.cmdline())]
    assert len(servers) == 1


def test_wrong_credentials_and_a_missing_bucket_are_told_with_a_remedy(installation, tmp_path):
    env, home = installation
    secret = json.loads((home / "secrets.json").read_text())["s3_secret_access_key"]
    foreign = {
        **environment(tmp_path / "home"),
        "TIDEMILL_S3_ENDPOINT_URL": f"http://127.0.0.1:{env['TIDEMILL_S3_PORT']}",
        "TIDEMILL_S3_ACCESS_KEY_ID": "tidemill",
    }
    with ending_all(tmp_path / "home"):
        wrong = tidemill({**foreign, "TIDEMILL_S3_SECRET_ACCESS_KEY": "wrong"}, "up")
        assert wrong.returncode == 1
        assert "TIDEMILL_S3_SECRET_ACCESS_KEY" in wrong.stderr or "correct the key and secret" in wrong.stderr
        missing = tidemill({**foreign, "TIDEMILL_S3_SECRET_ACCESS_KEY": secret, "TIDEMILL_BUCKET": "nowhere"}, "up")
        assert missing.returncode == 1 and "nowhere" in missing.stderr
        assert "Traceback" not in wrong.stderr + missing.stderr
        tidemill(foreign, "down")


def test_ctrl_c_ends_the_demo_and_all_that_it_started(tmp_path):
    home = tmp_path / "home"
    env = environment(home)
    with ending_all(home / "demo"):
        demo = subprocess.Popen(
            # A shell makes what it runs in the background deaf to an interrupt, and that is inherited.
            ["env", "--default-signal=INT", TIDEMILL, "demo"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_until("its store is up", lambda: len(processes_of(home / "demo")) > 2, timeout_s=60)
        demo.send_signal(signal.SIGINT)
        try:
            shown, _ = demo.communicate(timeout=60)
        except subprocess.TimeoutExpired:  # Python loses an exception that a callback from C raises: press again
            demo.send_signal(signal.SIGINT)
            shown, _ = demo.communicate(timeout=60)
        assert demo.returncode == 130, shown
        assert "Traceback" not in shown
        assert processes_of(home / "demo") == []
