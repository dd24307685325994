"""The demo's plot: v1 from documents, v2 by shadow, A/B and canary, a faulty rollout rolled back, drift, v3."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from flows.context import Context
from flows.demo.corpus import questions, write_subject
from flows.demo.narrator import Follower, Narrator
from flows.demo.summary import print_summary, summarise
from flows.demo.traffic import Traffic
from flows.prefect_api import start_run
from flows.supervisor import down, status, up
from lake.errors import TidemillError
from lake.layout import inbox_prefix, recipe_key
from lake.recipe import parse_recipe
from lake.settings import Settings, load_settings

RECIPE = Path(__file__).parent / "recipe.yaml"
STAGE_TIMEOUT_S = 1200.0
DRILL_ERROR_RATE = 0.6
N_QUESTIONS = 80


@dataclass(frozen=True)
class _Stage:
    """Everything a scene needs."""

    context: Context
    narrator: Narrator
    follower: Follower
    traffic: Traffic
    model: str
    corpus: Path

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        self.narrator.wait(what, done, timeout_s=STAGE_TIMEOUT_S, doing=self.follower.doing)
        self.follower.poll()

    def champion(self) -> str | None:
        found = self.context.ledger.versions.champion(self.model)
        return found.version if found else None

    def drop(self, subject: str) -> int:
        """Gather a subject's documentation and drop it. Returns the bytes dropped."""
        files = write_subject(subject, self.corpus / subject)
        for path in files:
            self.context.bucket.upload(path, f"{inbox_prefix(self.model)}{subject}/{path.name}")
        size_bytes = sum(path.stat().st_size for path in files)
        self.narrator.tell(
            f"dropped {len(files)} objects of real documentation on {subject}, {size_bytes / 1e6:.1f} MB"
        )
        return size_bytes


def run_demo(*, keep: bool, summary_file: Path | None, console: Console, recipe_file: Path = RECIPE) -> None:
    """Run the whole loop in a fresh folder below TIDEMILL_HOME. Raises TidemillError when it does not close."""
    outer = load_settings()
    settings = load_settings(**{**outer.model_dump(), "home": outer.home / "demo", "settle_s": 1.0})
    narrator = Narrator(console)
    recipe = parse_recipe(recipe_file.read_text(), str(recipe_file))
    down(settings, lambda *_: None)
    shutil.rmtree(settings.home, ignore_errors=True)
    context = Context(settings)
    stage = _Stage(
        context=context,
        narrator=narrator,
        follower=Follower(context, narrator, recipe.name),
        traffic=Traffic(settings, recipe.name),
        model=recipe.name,
        corpus=settings.home / "corpus",
    )
    try:
        dropped = _play(stage, settings, recipe_file)
        stage.traffic.stop()
        told = summarise(context, narrator, stage.traffic, recipe.name, dropped)
        if summary_file:
            summary_file.write_text(json.dumps(told, indent=1))
        print_summary(console, told)
    finally:
        stage.traffic.stop()
        if keep:
            console.print(f"everything stays up; for the other commands: [bold]export TIDEMILL_HOME={settings.home}[/]")
        else:
            console.print("stopping everything")
            down(settings, lambda *_: None)


def _play(stage: _Stage, settings: Settings, recipe_file: Path) -> dict[str, int]:
    narrator, traffic = stage.narrator, stage.traffic
    dropped: dict[str, int] = {}
    with narrator.chapter("Start everything"):
        up(settings, lambda what, state: narrator.tell(f"  {what:18} {state}"))
        stage.context.bucket.put(recipe_key(stage.model), recipe_file.read_bytes(), "application/yaml")
        narrator.tell(f"Prefect UI {settings.prefect_ui_url}   endpoint {settings.gateway_url}/v1")
        n_memory = sum(process.memory_bytes or 0 for process in status(settings))
        narrator.tell(
            f"recipe registered; {n_memory / 1e6:.0f} MB in use, {psutil.virtual_memory().available / 1e9:.1f} GB free"
        )

    with narrator.chapter("First model: documents become a live endpoint"):
        dropped["python"] = stage.drop("python")
        stage.wait("v1 on its way", lambda: stage.champion() == "v1")
        narrator.tell(f"[bold green]v1 is live[/] after {narrator.elapsed_s:.0f} s")
        narrator.chapters["first live model"] = round(narrator.elapsed_s, 1)

    python, science, cloud = (questions(subject, N_QUESTIONS) for subject in ("python", "science", "cloud"))
    with narrator.chapter("Second model: another subject, under live traffic"):
        traffic.ask_about([*python, *science])
        traffic.pace(1, 3.0)  # two cores train and serve at once
        traffic.start()
        dropped["science"] = stage.drop("science")
        stage.wait("v2 on its way", lambda: bool(stage.context.ledger.rollouts.of_model(stage.model)[1:]))
        dropped["cloud"] = stage.drop("cloud")  # too little for a training: it waits
        traffic.pace(3, 0.05)
        stage.wait("v2 rolls out", lambda: stage.champion() == "v2")
        narrator.tell("[bold green]v2 is live[/]")

    with narrator.chapter("Drill: v1 comes back with injected faults"):
        parameters = {"model": stage.model, "version": "v1", "inject_error_rate": DRILL_ERROR_RATE}
        with traffic.drill():
            start_run(settings, "roll-out/roll-out", parameters)
            stage.wait("the faulty challenger", lambda: _last_rollout_state(stage) == "rolled_back")
        narrator.tell(f"[bold green]rolled back[/]; the champion is {stage.champion()}")

    with narrator.chapter("The traffic changes: drift, retraining, v3"):
        verdicts = stage.context.ledger.drift_windows
        stage.wait("the reference window fills", lambda: verdicts.next_number(stage.model, "v2") >= 1)
        traffic.ask_about(cloud)
        narrator.tell("clients now ask about cloud services, which no model has seen")
        stage.wait("drift", lambda: any(v.confirmed for v in verdicts.verdicts(stage.model, "v2")))
        traffic.pace(1, 3.0)
        stage.wait("v3 trains by itself", lambda: _third_version_state(stage) not in ("", "candidate", "ready"))
        traffic.pace(3, 0.05)
        stage.wait("v3 rolls out", lambda: _third_version_state(stage) in _ENDS)
        if stage.champion() != "v3":
            raise TidemillError(
                "demo, the retrained model",
                expected="v3 as the new champion",
                got=f"v3 {_third_version_state(stage)}, champion {stage.champion()}",
                remedy="'tidemill models' and 'tidemill rollout' tell why it did not win; run with --keep to look around",
            )
        narrator.tell("[bold green]v3 is live[/]: it was trained because the traffic had changed")
    return dropped


_ENDS = ("champion", "rejected", "rolled_back", "failed")


def _last_rollout_state(stage: _Stage) -> str:
    rollouts = stage.context.ledger.rollouts.of_model(stage.model)
    return rollouts[-1].state if len(rollouts) > 2 else "running"


def _third_version_state(stage: _Stage) -> str:
    version = stage.context.ledger.versions.get(stage.model, "v3")
    return version.state if version else ""
