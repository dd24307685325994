"""Experiments from beginning to end: the real controller, supervisor and Envoy, small servers as replicas."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from bentos.experiment import outcome
from bentos.experiment_orders import begin_experiment, end_experiment
from bentos.orders import begin_rollout
from flows.context import Context
from flows.experiment_report import ExperimentReports, conclusions
from flows.rollout_view import read_view
from lake.bucket import Bucket
from lake.errors import RecipeError, TidemillError
from lake.ledger import Ledger
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Experiment, Rollout, parse_experiment
from lake.settings import Settings
from tests.ports import free_port_block
from tests.servers import ROOT, envoy, process, wait_until

pytestmark = pytest.mark.integration

# The servers take 1 ms for each token that an arm may generate: b is the slower one.
SLOWER = """
name: longer
model: docs
arms:
  a: {weight: 0.5}
  b: {weight: 0.5, sampling: {max_tokens: 60}}
metrics:
  - {metric: error_rate, alike_within: 0.2}
  - latency_p50
min_requests: 50
max_duration_s: 120
"""


@dataclass
class World:
    settings: Settings
    ledger: Ledger

    def state(self, begun: RolloutState) -> RolloutState:
        found = self.ledger.rollouts.get(begun.rollout_id)
        assert found is not None
        return found

    def ask(self, client: httpx.Client, user: str, **headers: str) -> str:
        """The variable or version that answers tell, or what went wrong."""
        try:
            answer = client.post(
                f"{self.settings.gateway_url}/v1/chat/completions",
                json={"model": "docs", "user": user},
                headers={"authorization": f"Bearer {self.settings.gateway_api_key}", **headers},
            )
        except httpx.HTTPError as error:
            return f"failed: {error!r}"
        if not answer.is_success:
            return f"failed: {answer.status_code}"
        return str(answer.json()["variant"] or answer.json()["tag"])

    @contextmanager
    def traffic(self) -> Iterator[Counter[str]]:
        """Two clients that ask without a pause, each request as another user."""
        outcomes: Counter[str] = Counter()
        stopping = threading.Event()

        def ask(number: int) -> None:
            with httpx.Client(timeout=20) as client:
                turn = 0
                while not stopping.is_set():
                    outcomes[self.ask(client, f"{number}-{turn}")] += 1
                    turn += 1
                    time.sleep(0.005)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield outcomes
        finally:
            stopping.set()
            for thread in threads:
                thread.join()


@pytest.fixture
def world(settings: Settings, bucket: Bucket) -> Iterator[World]:
    """v1 of docs serves; v2 is packaged."""
    settings = settings.model_copy(update={"replica_port_first": free_port_block(20)})
    with ExitStack() as stack:
        made = World(settings, Ledger(settings))
        made.ledger.migrate()
        stack.enter_context(envoy(settings))
        stack.callback(_end_all, settings)  # a killed supervisor leaves what it has started
        for module in ("tests.arbiter", "tests.stand_in_controller"):
            log = settings.home / "logs" / f"{module}.log"
            stack.enter_context(process([sys.executable, "-m", module], log, settings.environment()))
        for key in ("one", "two"):
            made.ledger.versions.allocate(model="docs", training_key=key, reason="drop", dataset_ids=(), parent=None)
        made.ledger.versions.move("docs", "v2", "ready", expected=("candidate", "failed"))
        begin_rollout(settings, made.ledger, model="docs", version="v1", tag="v1", plan=Rollout())
        client = stack.enter_context(httpx.Client(timeout=20))
        wait_until("v1 serves", lambda: made.ask(client, "someone") == "v1")
        yield made


def test_the_slower_arm_is_found_and_the_champion_serves_on(world: World) -> None:
    context = Context(world.settings)
    reports = ExperimentReports(context)
    with world.traffic() as outcomes:
        begun = begin_experiment(world.ledger, parse_experiment(SLOWER, "longer.yaml"), version="v1", tag="v1")
        wait_until("arm b answers", lambda: outcomes["v1-b1"] > 5)
        assert reports.tick() == []
        with httpx.Client(timeout=20) as client:
            pinned = {world.ask(client, "someone", **{"x-tidemill-version": "v1-b1"}) for _ in range(5)}
        wait_until("it ends", lambda: world.state(begun).state == "ended", timeout_s=90)
        wait_until("arm b has no replica", lambda: len(world.ledger.rollouts.wanted_replicas()) == 1)
        answered = outcomes["v1"]
        wait_until("the champion answers", lambda: outcomes["v1"] > answered + 20)
    assert pinned == {"v1-b1"}
    assert set(outcomes) == {"v1", "v1-b1"}, outcomes
    assert [(found.version, found.state) for found in world.ledger.versions.all("docs")] == [
        ("v1", "champion"),
        ("v2", "ready"),
    ]

    last = world.ledger.rollouts.decisions(begun.rollout_id)[-1]
    assert (last.action, last.to_stage) == ("end", "ended")
    assert "a is better in latency_p50" in last.reason
    view = read_view(world.ledger, begun.rollout_id)
    assert conclusions(view) == ["Arm a is better in latency_p50.", "The arms are alike in error_rate."]
    latency = parse_experiment(SLOWER, "longer.yaml").metrics[1]
    (result,) = [check for check in last.checks if check.metric == "latency_p50"]
    assert outcome(latency, result) == "a"
    assert result.lower is not None and result.effect is not None
    assert 1 <= result.lower <= result.effect

    assert reports.tick() == [begun.rollout_id]
    assert reports.tick() == []
    told = context.bucket.get(f"reports/docs/experiment/{begun.rollout_id}/report.md").decode()
    assert "Arm a is better in latency\\_p50" in told or "Arm a is better in latency_p50" in told
    assert "max_tokens 60" in told.replace("\\", "")
    assert context.bucket.get(f"reports/docs/experiment/{begun.rollout_id}/report.png").startswith(b"\x89PNG")
    assert tidemill(world, "experiment", "show", "longer").returncode == 0


def test_an_arm_that_fails_ends_it_at_once_and_a_release_comes_after_it(world: World) -> None:
    wanted = Experiment.model_validate({"name": "faulty", "model": "docs", "min_requests": 1_000_000})
    with world.traffic() as outcomes:
        begun = world.ledger.experiments.offer(
            wanted, version="v2", tag="v2", environment={"TIDEMILL_INJECT_ERROR_RATE": "0.8"}
        )
        with pytest.raises(TidemillError, match=r"experiment docs\.faulty-1"):
            begin_experiment(world.ledger, wanted, version="v1", tag="v1")
        wait_until("it ends", lambda: world.state(begun).state == "ended", timeout_s=60)
        begin_rollout(world.settings, world.ledger, model="docs", version="v2", tag="v2", plan=Rollout(steps=()))
        wait_until("v2 serves", lambda: outcomes["v2"] > 20)
    assert world.ledger.rollouts.decisions(begun.rollout_id)[-1].reason.startswith("arm b ")
    champion = world.ledger.versions.champion("docs")
    assert champion is not None
    assert champion.version == "v2"


def test_what_cannot_start_ends_and_an_operator_may_stop_one(world: World, tmp_path: Any) -> None:
    wanted = Experiment.model_validate({"name": "same", "model": "docs", "min_requests": 1_000_000})
    broken = begin_experiment(world.ledger, wanted, version="v1", tag="broken")
    wait_until("it ends", lambda: world.state(broken).state == "ended", timeout_s=60)
    assert "no bento broken in the store" in world.ledger.rollouts.decisions(broken.rollout_id)[-1].reason
    with world.traffic() as outcomes:
        begun = begin_experiment(world.ledger, wanted, version="v1", tag="v1")
        wait_until("arm b answers", lambda: outcomes["v1-b2"] > 20)
        stopped = tidemill(world, "experiment", "stop", "same", "--reason", "seen enough")
        assert stopped.returncode == 0, stopped.stderr
        wait_until("arm b has no replica", lambda: len(world.ledger.rollouts.wanted_replicas()) == 1)
    assert set(outcomes) == {"v1", "v1-b2"}, outcomes
    assert world.ledger.rollouts.decisions(begun.rollout_id)[-1].reason == "seen enough"
    with pytest.raises(TidemillError, match="has ended"):
        end_experiment(world.ledger, "same", "again")

    uneven = tmp_path / "uneven.yaml"
    uneven.write_text(SLOWER.replace("weight: 0.5, ", "weight: 0.6, "))
    refused = tidemill(world, "experiment", "start", str(uneven))
    assert refused.returncode == 1
    assert "weights that add up to 1: a 0.5 + b 0.6 is 1.1" in refused.stderr
    with pytest.raises(RecipeError):
        parse_experiment(uneven.read_text(), "uneven.yaml")


def tidemill(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    environment = {**world.settings.environment(), "COLUMNS": "200", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def _end_all(settings: Settings) -> None:
    for each in psutil.process_iter():
        try:
            if each.environ().get("TIDEMILL_HOME") == str(settings.home):
                each.kill()
        except psutil.Error:
            continue
