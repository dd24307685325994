"""What the demo shows while it runs: one line per event, a spinner for what is going on, timings for the summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from flows.context import Context
from flows.dispatch import read_progress
from lake.errors import TidemillError

POLL_S = 0.5


class Narrator:
    """Tells the story on the console and keeps how long each chapter took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self.chapters: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def tell(self, text: str) -> None:
        minutes, seconds = divmod(int(self.elapsed_s), 60)
        self._console.print(f"[dim]{minutes:02d}:{seconds:02d}[/]  {text}", highlight=False)

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """A headed part of the story; its duration goes into the summary."""
        self._console.rule(f"[bold]{title}[/]", align="left")
        started = time.monotonic()
        yield
        self.chapters[title] = round(time.monotonic() - started, 1)

    def wait(
        self, what: str, done: Callable[[], bool], *, timeout_s: float, doing: Callable[[], str] | None = None
    ) -> None:
        """Wait with a spinner until `done()`. Raises TidemillError after `timeout_s`."""
        started = time.monotonic()
        with self._console.status(what) as spinner:
            while not done():
                waited = time.monotonic() - started
                if waited > timeout_s:
                    raise TidemillError(
                        f"demo, {what}",
                        expected=f"an end within {timeout_s:.0f} s",
                        got=f"none after {waited:.0f} s",
                        remedy="'tidemill runs', 'tidemill rollout' and the logs below TIDEMILL_HOME show where it hangs",
                    )
                spinner.update(f"{what}  [dim]{doing() if doing else ''} {waited:.0f} s[/]")
                time.sleep(POLL_S)


class Follower:
    """Tells every committed stage and every rollout decision once, and raises when a drop ends badly."""

    def __init__(self, context: Context, narrator: Narrator, model: str) -> None:
        self._context, self._narrator, self._model = context, narrator, model
        self._told: set[str] = set()

    def poll(self) -> None:
        ledger = self._context.ledger
        for stage, identity, duration_s in ledger.stages.durations(self._model):
            if identity not in self._told:
                self._told.add(identity)
                self._narrator.tell(f"  [green]✓[/] {stage:9} {duration_s:6.1f} s  {self._about(stage, identity)}")
        for rollout in ledger.rollouts.of_model(self._model):
            for number, decision in enumerate(ledger.rollouts.decisions(rollout.rollout_id)):
                identity = f"{rollout.rollout_id}-{number}"
                if identity not in self._told:
                    self._told.add(identity)
                    colour = "red" if decision.action == "roll_back" else "cyan"
                    self._narrator.tell(
                        f"  [{colour}]{decision.action:9}[/] {decision.challenger}: {decision.from_stage} → "
                        f"{decision.to_stage}: {decision.reason}"
                    )
        for verdict in ledger.drift_windows.verdicts(self._model):
            if verdict.drift_id not in self._told:
                self._told.add(verdict.drift_id)
                words = "drift, confirmed" if verdict.confirmed else "drift, once" if verdict.drifted else "no drift"
                self._narrator.tell(f"  [magenta]window[/]    {verdict.drift_id}: {words} (p = {verdict.p_value:.4f})")
        for state in ledger.drops.states(self._model):
            if state.state in ("refused", "poison"):
                raise TidemillError(
                    f"drop {state.drop_id}",
                    expected="a prepared drop",
                    got=state.message or state.state,
                    remedy=f"look at its run in the Prefect UI: {self._context.settings.prefect_ui_url}",
                )
        for version in ledger.versions.all(self._model):
            if version.state in ("rejected", "failed", "rolled_back"):
                raise TidemillError(
                    f"{self._model} {version.version}",
                    expected="a version that passes its gate and its rollout",
                    got=f"{version.state}: {version.message}",
                    remedy=f"look at its run in the Prefect UI: {self._context.settings.prefect_ui_url}",
                )

    def doing(self) -> str:
        """What goes on right now, for the spinner."""
        self.poll()
        for version in self._context.ledger.versions.all(self._model):
            if version.state == "candidate":
                told = read_progress(self._context, self._model, version.version)
                if told and told["step"] < told["n_steps"]:
                    return (
                        f"{version.version}: step {told['step']:.0f}/{told['n_steps']:.0f}, loss {told['loss']:.3f}, "
                        f"{told['tokens_per_s']:.0f} tokens/s, {told['eta_s']:.0f} s left;"
                    )
                return f"{version.version}:"
        return ""

    def _about(self, stage: str, identity: str) -> str:
        record = self._context.ledger.stages.find(identity) or {}
        match stage:
            case "prepare":
                rejected = ", ".join(f"{n} {reason}" for reason, n in record["rejected"].items())
                return f"{record['n_read']} read, {record['n_kept']} kept; {rejected}"
            case "check":
                return f"{record['n_expectations']} expectations, passed: {record['passed']}"
            case "train":
                return f"{record['version']}, validation loss {record['validation_loss']:.3f}, {record['precision']}"
            case "evaluate":
                score = record["perplexity"][0]
                champion = f", champion {score['champion']:.2f}" if score["champion"] else ""
                return f"perplexity: base {score['base']:.2f}{champion}, challenger {score['challenger']:.2f}"
            case "export":
                return (
                    f"{record['variant']}, {record['size_bytes'] / 1e6:.0f} MB, parity {record['parity_max_logit_diff']:.1e}, "
                    f"quantization loss {record['quantization_loss']:+.2%}"
                )
            case "package":
                return str(record["tag"])
        return ""
