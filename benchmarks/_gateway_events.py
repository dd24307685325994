"""What may happen while clients ask, each with its load: how many requests there were, and how many failed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import httpx
import psutil

from benchmarks._gateway_installation import AT_ONCE, MODEL, Installation, Load
from benchmarks._gateway_stream import Stream
from bentos.arbiter import ask
from bentos.orders import request_rollback, undo
from lake.ledger.rollout_state import RolloutState
from lake.recipe import Rollout, RolloutCheck, RolloutStep
from tests.servers import wait_until

# A request is taken for one that a killed process was at when it was asked before and unanswered this long after.
IN_FLIGHT_S = 0.1
N_STREAMS = 8
# Latency is not what is asked here, on a machine that does other things too.
CHECKS = (RolloutCheck(metric="error_rate"), RolloutCheck(metric="latency_p50", margin=20))
ENDLESS = Rollout(
    steps=(RolloutStep(stage="canary", share=0.5, min_requests=10_000_000, max_duration_s=3600),),
    checks=CHECKS,
    cool_down_s=0,
)


@dataclass(frozen=True)
class Event:
    """What clients met. `n_injected` are errors that a server was told to make, `n_lost` requests that a process which
    was killed was at, `n_failed` all other failures. `took_s` is what `took` says."""

    name: str
    n_requests: int
    n_failed: int
    how: str
    n_injected: int = 0
    n_lost: int = 0
    took_s: float | None = None
    failures: tuple[str, ...] = ()


def walk(n: int) -> Rollout:
    """The whole plan, in about `n` requests."""
    stages = (
        ("shadow", 1.0, 0.1),
        ("ab", 0.5, 0.1),
        ("canary", 0.05, 0.01),
        ("canary", 0.25, 0.05),
        ("canary", 0.5, 0.1),
    )
    return Rollout(
        steps=tuple(
            RolloutStep.model_validate({"stage": stage, "share": share, "min_requests": max(5, int(part * n))})
            for stage, share, part in stages
        ),
        checks=CHECKS,
        retain_champion_s=0,
        cool_down_s=0,
    )


def events(n: int) -> list[Callable[[Installation], Event]]:
    """All of them, each with at least `n` requests."""
    told = (
        promote, roll_back_by_order, challenger_turns_bad, challenger_killed, champion_killed_in_canary,
        champion_killed_alone, drain, controller_killed, undo_retained, undo_started_anew, gateway_restarted, gateway_killed,
    )  # fmt: skip
    return [partial(event, n=n) for event in told]


def promote(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        rollout = installed.offer(walk(n))
        ended = installed.wait_for(rollout, "promoted", "rolled_back")
    _expect(ended.state == "promoted", installed.reason(rollout))
    return _event("promote", load, "shadow 100%, A/B 50%, canary 5, 25, 50%, full")


def roll_back_by_order(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        rollout = _challenged(installed)
        request_rollback(installed.ledger, MODEL, "ordered")
        _wait_until_gone(installed, rollout.challenger)
    return _event("roll back, by order", load, "out of a canary at 50%")


def challenger_turns_bad(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        rollout = _challenged(installed)
        turned_s = time.monotonic()
        port = installed.port(rollout.challenger)
        httpx.post(f"http://127.0.0.1:{port}/turn", json={"error_rate": 0.3}).raise_for_status()
        installed.wait_for(rollout, "rolled_back")
        _wait_until_gone(installed, rollout.challenger)
    took_s = load.of(rollout.challenger)[-1][0] - turned_s
    how = f"from 0 to 30% errors at 50% of the traffic; {took_s:.1f} s until the last client met it"
    return _event("roll back, challenger turns bad", load, how, took_s=took_s)


def challenger_killed(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        rollout = _challenged(installed)
        killed_s = _kill(installed.replica_pid(rollout.challenger))
        installed.wait_for(rollout, "rolled_back")
        _wait_until_gone(installed, rollout.challenger)
    return _event("challenger's replica SIGKILL", load, "at 50% of the traffic; rolled back", killed_s=killed_s)


def champion_killed_in_canary(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        rollout = _challenged(installed)
        killed_s = _kill(installed.replica_pid(str(rollout.champion)))
        time.sleep(5)
        request_rollback(installed.ledger, MODEL, "ordered")
        _wait_until_gone(installed, rollout.challenger)
    how = "while a challenger has 50%, which answers in its place"
    return _event("champion's replica SIGKILL, in a canary", load, how, killed_s=killed_s)


def champion_killed_alone(installed: Installation, n: int) -> Event:
    champion = _champion(installed)
    with installed.load(n) as load:
        time.sleep(2)
        killed_s = _kill(installed.replica_pid(champion))
        time.sleep(5)
    longest_s = max(ended_s - began_s for began_s, ended_s, _ in load.asked)
    how = f"nobody else can answer: requests wait until it is started again, {longest_s:.1f} s at most"
    return _event("champion's replica SIGKILL, alone", load, how, killed_s=killed_s, took_s=longest_s)


def drain(installed: Installation, n: int) -> Event:
    champion = _champion(installed)
    port = installed.port(champion)
    streams = [Stream(installed) for _ in range(N_STREAMS)]
    with installed.load(n) as load:
        for stream in streams:
            stream.start()
        wait_until("all streams have begun", lambda: all(stream.version == champion for stream in streams))
        rollout = installed.offer(AT_ONCE)
        installed.wait_for(rollout, "promoted")
        wait_until("the new one answers", lambda: _answers_now(installed, rollout.challenger))
        time.sleep(3)
        _expect(_is_wanted(installed, champion), f"{champion} ended before its streams did")
        httpx.post(f"http://127.0.0.1:{port}/release").raise_for_status()
        for stream in streams:
            stream.join()
        _wait_until_gone(installed, champion)
    broken = tuple(f"stream: {stream.ended}" for stream in streams if stream.ended != "[DONE]")
    how = f"promoted at once; {N_STREAMS} streams that the old replica had begun went on for 3 s and ended whole"
    return _event("drain", load, how, also_failed=broken, n_also=N_STREAMS)


def controller_killed(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        rollout = installed.offer(walk(n))
        wait_until("it is in A/B", lambda: installed.state(rollout).step_index >= 1, 60)
        pid = installed.pid("controller")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        wait_until("it is started again", lambda: installed.pid("controller") not in (None, pid))
        revision = installed.state(rollout).revision
        wait_until("it goes on", lambda: installed.state(rollout).revision > revision, 60)
        took_s = time.monotonic() - killed_s
        ended = installed.wait_for(rollout, "promoted", "rolled_back")
    _expect(ended.state == "promoted", installed.reason(rollout))
    how = f"in A/B; it went on after {took_s:.1f} s and promoted"
    return _event("controller SIGKILL, in mid-rollout", load, how, took_s=took_s)


def undo_retained(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        rollout = installed.offer(AT_ONCE.model_copy(update={"retain_champion_s": 600}))
        installed.wait_for(rollout, "promoted")
        wait_until("it answers", lambda: _answers_now(installed, rollout.challenger))
        time.sleep(3)
        undone_s = time.monotonic()
        undo(installed.ledger, MODEL, "ordered")
        _wait_until_gone(installed, rollout.challenger)
    took_s = max(began_s for began_s, _, _ in load.of(rollout.challenger)) - undone_s
    how = f"the former champion's replica is kept: all traffic is back within {1000 * took_s:.0f} ms"
    return _event("rollout undo, champion retained", load, how, took_s=took_s)


def undo_started_anew(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        before = _champion(installed)
        rollout = installed.offer(AT_ONCE)
        installed.wait_for(rollout, "promoted")
        _wait_until_gone(installed, before)
        undone_s = time.monotonic()
        undo(installed.ledger, MODEL, "ordered")
        _wait_until_gone(installed, rollout.challenger)
    took_s = max(began_s for began_s, _, _ in load.of(rollout.challenger)) - undone_s
    how = f"the former champion is started first, here a small server: {took_s:.1f} s"
    return _event("rollout undo, champion not retained", load, how, took_s=took_s)


def gateway_restarted(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        time.sleep(3)
        before, began_s = installed.envoy(), time.monotonic()
        ask(installed.settings, "reload", name="gateway", waiting=True, timeout_s=30)
        wait_until("another Envoy runs", lambda: _is_another(installed, before), 60)
        time.sleep(5)
    gap_s = max((ended_s for _, ended_s, _ in load.failures), default=began_s) - began_s
    return _event("Envoy restart", load, f"reloaded by its supervisor; {gap_s:.1f} s to the last failure", took_s=gap_s)


def gateway_killed(installed: Installation, n: int) -> Event:
    with installed.load(n) as load:
        time.sleep(3)
        before = installed.envoy()
        killed_s = _kill(before.pid)
        wait_until("another Envoy runs", lambda: _is_another(installed, before), 60)
        time.sleep(5)
    gap_s = max((ended_s for _, ended_s, _ in load.failures), default=killed_s) - killed_s
    return _event("Envoy SIGKILL", load, f"its supervisor starts it again; {gap_s:.1f} s without it", took_s=gap_s)


def _is_another(installed: Installation, before: psutil.Process) -> bool:
    try:
        return installed.envoy() != before
    except (psutil.Error, TypeError, ValueError):  # none at the moment
        return False


def _challenged(installed: Installation) -> RolloutState:
    """A canary at 50% that stays, with two seconds of traffic."""
    rollout = installed.offer(ENDLESS)
    installed.wait_for_traffic(rollout)
    time.sleep(2)
    return rollout


def _champion(installed: Installation) -> str:
    found = installed.ledger.versions.champion(MODEL)
    assert found is not None
    return found.version


def _answers_now(installed: Installation, version: str) -> bool:
    answer = httpx.post(installed.url, json={"model": MODEL}, headers=installed.headers)
    return bool(answer.raise_for_status().json()["tag"] == version)


def _is_wanted(installed: Installation, version: str) -> bool:
    return any(replica.version == version for replica in installed.ledger.rollouts.wanted_replicas())


def _wait_until_gone(installed: Installation, version: str) -> None:
    wait_until(f"{version} is needed no longer", lambda: not _is_wanted(installed, version), 120)


def _kill(pid: int) -> float:
    killed_s = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return killed_s


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _event(
    name: str,
    load: Load,
    how: str,
    *,
    killed_s: float | None = None,
    took_s: float | None = None,
    also_failed: tuple[str, ...] = (),
    n_also: int = 0,
) -> Event:
    lost = [
        found
        for found in load.failures
        if killed_s is not None and found[0] <= killed_s + IN_FLIGHT_S and found[1] >= killed_s
    ]
    failures = [f"+{began_s - load.began_s:.2f} s: {what}" for began_s, ended_s, what in load.failures]
    return Event(
        name=name,
        n_requests=len(load.asked) + n_also,
        n_failed=len(load.failures) - len(lost) + len(also_failed),
        how=how,
        n_injected=load.n_injected,
        n_lost=len(lost),
        took_s=took_s,
        failures=(*failures, *also_failed),
    )
