"""Points on the whole loop: `tidemill up`, a tiny model, and from each drop to its live version several processes die."""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import httpx
import psutil

from flows.context import Context
from flows.supervisor import status
from lake.ledger.versions import Version
from lake.settings import load_settings
from lake.stage import sweep
from tests.chaos.inputs import Inbox
from tests.chaos.invariants import SETTLED, Violation, violations
from tests.chaos.points import Outcome, Point
from tests.installation import ending_all, environment, tidemill
from tests.servers import wait_until
from tests.tiny_model import write_tiny_model

MODEL = "looped"
KILLS_PER_PASS = 5
# Between two kills: imports, training, export and packaging of the tiny model take a few seconds each.
BETWEEN_S = (2.0, 18.0)
LIVE_WITHIN_S = 400.0
N_DOCUMENTS, MIN_DOCUMENTS = 60, 20
VARIABLES = {"S3_PORT": "s3_port", "PREFECT_PORT": "prefect_port", "GATEWAY_PORT": "gateway_port"}
VARIABLES |= {"GATEWAY_ADMIN_PORT": "gateway_admin_port", "REPLICA_PORT_FIRST": "replica_port_first"}


class LoopPoints:
    """The bench: an installation as a user starts it. circus starts again what was killed; nobody else does anything."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-loop-"))

    def __enter__(self) -> LoopPoints:
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        home = self._folder / "home"
        env = environment(home)
        self._stack.enter_context(ending_all(home))
        done = tidemill(env, "up")
        assert done.returncode == 0, done.stdout + done.stderr
        self._stack.callback(tidemill, env, "down")
        self._settings = load_settings(home=home, **{name: env[f"TIDEMILL_{key}"] for key, name in VARIABLES.items()})
        self._context = Context(self._settings)
        self._inbox = Inbox(self._context.bucket, MODEL)
        model = write_tiny_model(self._folder / "tiny")
        self._inbox.register(base_model=f"file:{model}", min_documents=MIN_DOCUMENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, point: Point) -> Outcome:
        outcome, started, draw = Outcome(point), time.monotonic(), point.draw()
        before = self._context.ledger.versions.champion(MODEL)
        self._inbox.put_batch(point.batch_seed)
        self._inbox.put_many(N_DOCUMENTS, point.batch_seed)
        struck = []
        while len(struck) < KILLS_PER_PASS and not self._is_done(before):
            time.sleep(draw.uniform(*BETWEEN_S))
            struck.append(self._kill_one(draw))
        outcome.where, outcome.n_strikes, outcome.fired = ", ".join(struck), len(struck), True
        struck_at = time.monotonic()
        try:
            wait_until("a new version is live and all is settled", lambda: self._is_done(before), LIVE_WITHIN_S)
        except AssertionError as error:
            outcome.violations.append(Violation("stuck", f"{error}; {self._states()}"))
        outcome.recovery_s = time.monotonic() - struck_at
        outcome.violations += self._verified()
        outcome.took_s = time.monotonic() - started
        return outcome

    def _kill_one(self, draw: random.Random) -> str:
        """SIGKILL to one of the processes, or to what a worker has started. Returns its name."""
        candidates: list[tuple[str, int]] = []
        for process in status(self._settings):
            if process.pid is None:
                continue
            candidates.append((process.name, process.pid))
            if process.name.startswith("worker-"):
                with suppress(psutil.Error):
                    children = psutil.Process(process.pid).children(recursive=True)
                    candidates += [(f"a run of {process.name}", child.pid) for child in children]
        name, pid = draw.choice(sorted(candidates))
        with suppress(psutil.Error):
            psutil.Process(pid).send_signal(signal.SIGKILL)
        return name

    def _is_done(self, before: Version | None) -> bool:
        """A new champion answers, or the gate has rejected the version; and no drop is under way."""
        try:
            drops = self._context.ledger.drops.states(MODEL)
            versions = self._context.ledger.versions.all(MODEL)
            champion = self._context.ledger.versions.champion(MODEL)
            if not versions or any(drop.state not in SETTLED for drop in drops) or versions[-1].state == "candidate":
                return False
            is_new = champion is not None and (before is None or champion.number > before.number)
            return (is_new and self._answers() == champion.version) or versions[-1].state == "rejected"
        except Exception:  # the store, the ledger or the gateway is away for a moment
            return False

    def _answers(self) -> str | None:
        """The version that answers through the gateway."""
        answer = httpx.post(
            f"{self._settings.gateway_url}/v1/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": "What is a list?"}], "max_tokens": 4},
            headers={"authorization": f"Bearer {self._settings.gateway_api_key}"},
            timeout=20,
        )
        return answer.headers.get("x-tidemill-model", "").rpartition("/")[2] if answer.is_success else None

    def _verified(self) -> Iterator[Violation]:
        wait_until("the store answers", lambda: self._context.bucket.exists(f"recipes/{MODEL}.yaml"), 60)
        sweep(self._context.ledger, self._context.bucket, abandoned_after=timedelta(0))
        yield from violations(self._context, MODEL, self._inbox.uploads)
        versions = self._context.ledger.versions.all(MODEL)
        if len([version for version in versions if version.state == "champion"]) > 1:
            yield Violation("twice", f"champions: {versions}")
        trained = [
            dataset_id for version in versions if version.state != "failed" for dataset_id in version.dataset_ids
        ]
        for dataset_id in {each for each in trained if trained.count(each) > 1}:
            yield Violation("twice", f"dataset {dataset_id} was trained on by several versions")

    def _states(self) -> str:
        drops = [(drop.drop_id, drop.state, drop.message) for drop in self._context.ledger.drops.states(MODEL)]
        versions = [(each.version, each.state, each.message) for each in self._context.ledger.versions.all(MODEL)]
        return f"drops {drops}, versions {versions}"
