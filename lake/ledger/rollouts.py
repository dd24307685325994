"""Rollouts, their decisions, and the replicas that should be running."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, select, update
from sqlalchemy.engine import Connection, Engine

from lake.ledger.rollout_state import CoolingDownError, Replica, RolloutState, RolloutUnderWayError
from lake.ledger.tables import replicas, rollout_decisions, rollout_observations, rollouts, versions
from lake.ledger.taints import blocking
from lake.recipe import Rollout as RolloutPlan
from lake.records import RolloutDecision


class Rollouts:
    def __init__(self, engine: Engine, replica_port_first: int) -> None:
        self._engine = engine
        self._port_first = replica_port_first

    def offer(
        self,
        *,
        model: str,
        challenger: str,
        plan: RolloutPlan,
        tag: str,
        environment: dict[str, str],
        cooled: bool = False,
    ) -> RolloutState:
        """Begin a rollout against the present champion, with its replica and the version's state, in one transaction.

        The one that is under way for this very challenger is returned as it is. Raises RolloutUnderWayError when another
        challenger is, CoolingDownError after a rollback unless `cooled`, ValueError when the version is the champion or
        unknown, or has seen what was erased since.
        """
        with self._engine.begin() as connection:
            state = connection.scalar(
                select(versions.c.state).where(versions.c.model == model, versions.c.version == challenger)
            )
            if state is None or state == "champion":
                raise ValueError(
                    f"{model}/{challenger} is {state or 'unknown'}, expected a version that does not serve"
                )
            if state != "challenger" and (state == "erased" or blocking(connection, model, challenger)):
                raise ValueError(
                    f"{model}/{challenger} has seen documents that were erased since, expected a clean version"
                )
            champion = connection.scalar(
                select(versions.c.version).where(versions.c.model == model, versions.c.state == "champion")
            )
            started = self.begin_within(connection, model, challenger, champion, plan, cooled)
            if started.step_index < 0:
                self.want_within(connection, model, challenger, tag, environment)
            connection.execute(
                update(versions)
                .where(versions.c.model == model, versions.c.version == challenger)
                .values(state="challenger", message=None)
            )
        return started

    def running(self) -> list[RolloutState]:
        return self._select(rollouts.c.state == "running")

    def of_model(self, model: str) -> list[RolloutState]:
        """All rollouts of a model, oldest first."""
        return self._select(rollouts.c.model == model)

    def of_kind(self, kind: str) -> list[RolloutState]:
        """All rollouts of a kind (release, experiment), oldest first."""
        return self._select(rollouts.c.kind == kind)

    def get(self, rollout_id: str) -> RolloutState | None:
        found = self._select(rollouts.c.rollout_id == rollout_id)
        return found[0] if found else None

    def enter_step(
        self,
        rollout_id: str,
        expected: int,
        step_index: int,
        evidence: dict[str, Any] | None,
        decision: RolloutDecision | None = None,
        revision: int | None = None,
    ) -> bool:
        """Compare-and-set of the step, with the evidence that it begins with.

        The decision that led to it is recorded with it, or not at all. With the `revision` of the evidence that it rests
        on, nothing is done once there is newer evidence.
        """
        with self._engine.begin() as connection:
            result = connection.execute(
                update(rollouts)
                .where(
                    rollouts.c.rollout_id == rollout_id,
                    rollouts.c.step_index == expected,
                    rollouts.c.state == "running",
                    rollouts.c.revision == (rollouts.c.revision if revision is None else revision),
                )
                .values(
                    step_index=step_index,
                    evidence=evidence,
                    revision=rollouts.c.revision + 1,
                    entered_at=datetime.now(UTC),
                )
            )
            if result.rowcount == 1 and decision is not None:
                _record(connection, decision)
            return result.rowcount == 1

    def weigh(self, state: RolloutState, evidence: dict[str, Any], decision: RolloutDecision | None = None) -> bool:
        """Keep the evidence of `state`'s step, and a decision to hold if it is worth telling.

        Compare-and-set of the revision: nothing is counted twice, should two processes have counted it.
        """
        with self._engine.begin() as connection:
            result = connection.execute(
                update(rollouts)
                .where(
                    rollouts.c.rollout_id == state.rollout_id,
                    rollouts.c.step_index == state.step_index,
                    rollouts.c.revision == state.revision,
                    rollouts.c.state == "running",
                )
                .values(evidence=evidence, revision=state.revision + 1)
            )
            if result.rowcount == 1 and decision is not None:
                _record(connection, decision)
            return result.rowcount == 1

    def approve(self, rollout_id: str, step_index: int) -> bool:
        """Let a rollout go beyond a step that pauses for approval. False when it is not within that step any more."""
        with self._engine.begin() as connection:
            result = connection.execute(
                update(rollouts)
                .where(
                    rollouts.c.rollout_id == rollout_id,
                    rollouts.c.step_index == step_index,
                    rollouts.c.state == "running",
                )
                .values(approved_step=step_index)
            )
            return result.rowcount == 1

    def finish(
        self,
        rollout_id: str,
        state: str,
        decision: RolloutDecision | None = None,
        cool_down: bool = True,
        revision: int | None = None,
    ) -> bool:
        """Compare-and-set from running to `promoted`, `rolled_back` or `ended`, with what follows, in one transaction.

        Promoted: the challenger is the champion, and the one before is retired; its replica is kept for a while.
        Rolled back: a challenger that has served before is retired again, another one is `rolled_back`, with the
        decision's reason as message; unless `cool_down` is False, the model cools down. Ended: an experiment is over.
        With the `revision` of the evidence that it rests on, nothing is done once there is newer evidence.
        """
        if state not in ("promoted", "rolled_back", "ended"):
            raise ValueError(f"state={state!r}, expected promoted, rolled_back or ended")
        now = datetime.now(UTC)
        with self._engine.begin() as connection:
            this = rollouts.c.rollout_id == rollout_id
            result = connection.execute(
                update(rollouts)
                .where(
                    this,
                    rollouts.c.state == "running",
                    rollouts.c.revision == (rollouts.c.revision if revision is None else revision),
                )
                .values(state=state, ended_at=now)
            )
            if result.rowcount != 1:
                return False
            row = connection.execute(select(rollouts).where(this)).one()
            plan = RolloutPlan.model_validate(row.plan)
            # They have been taken in, and some stand for users.
            connection.execute(delete(rollout_observations).where(rollout_observations.c.rollout_id == rollout_id))
            if decision is not None:
                _record(connection, decision)
            if state == "promoted":
                _crown(connection, row.model, row.challenger)
                retain_until = now + timedelta(seconds=plan.retain_champion_s) if row.champion else None
                connection.execute(update(rollouts).where(this).values(retain_until=retain_until))
            elif state == "rolled_back":
                _send_back(connection, row.model, row.challenger, decision.reason if decision else None)
                if cool_down:
                    cool_until = now + timedelta(seconds=plan.cool_down_s)
                    connection.execute(update(rollouts).where(this).values(cool_until=cool_until))
            return True

    def undo(self, promoted: RolloutState, decision: RolloutDecision) -> bool:
        """Give the traffic back to the champion that a promoted rollout has replaced, in one transaction.

        False, and nothing is done, when its replica is not kept any more, it has seen what was erased since, another
        rollout is under way, or the challenger is not the champion now.
        """
        model, before = promoted.model, promoted.champion
        crowned = (versions.c.model == model) & (versions.c.state == "champion")
        kept = select(replicas.c.environment).where(replicas.c.model == model, replicas.c.version == before)
        under_way = select(rollouts.c.rollout_id).where(rollouts.c.model == model, rollouts.c.state == "running")
        with self._engine.begin() as connection:
            if connection.scalar(select(versions.c.version).where(crowned)) != promoted.challenger:
                return False
            retired = connection.scalar(
                select(versions.c.state).where(versions.c.model == model, versions.c.version == before)
            )
            # What was started for a drill, with faults, is not what should serve again.
            if before is None or retired != "retired" or connection.scalar(kept) != {}:
                return False
            if blocking(connection, model, before) or connection.execute(under_way).first():
                return False
            undone = connection.execute(
                update(rollouts)
                .where(rollouts.c.rollout_id == promoted.rollout_id, rollouts.c.state == "promoted")
                .values(state="undone", retain_until=None)
            )
            if undone.rowcount != 1:
                return False
            _record(connection, decision)
            _crown(connection, model, before)
            connection.execute(
                update(versions)
                .where(versions.c.model == model, versions.c.version == promoted.challenger)
                .values(state="rolled_back", message=decision.reason)
            )
            return True

    def retained(self, now: datetime) -> dict[tuple[str, str], RolloutState]:
        """Champions that were replaced a moment ago and whose replicas stay, with the rollouts that replaced them.

        Not one that was erased since.
        """
        may_serve = exists().where(
            versions.c.model == rollouts.c.model,
            versions.c.version == rollouts.c.champion,
            versions.c.state == "retired",
        )
        kept = self._select((rollouts.c.state == "promoted") & (rollouts.c.retain_until > now) & may_serve)
        return {(state.model, state.champion): state for state in kept if state.champion is not None}

    def decisions(self, rollout_id: str) -> list[RolloutDecision]:
        """All recorded decisions of a rollout, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.scalars(
                select(rollout_decisions.c.record)
                .where(rollout_decisions.c.rollout_id == rollout_id)
                .order_by(rollout_decisions.c.id)
            )
            return [RolloutDecision.model_validate(row) for row in rows]

    def want_replica(self, *, model: str, version: str, tag: str, environment: dict[str, str]) -> Replica:
        """Ask for a replica; it gets the lowest free port. Asking again changes tag and environment, not the port."""
        with self._engine.begin() as connection:
            return self.want_within(connection, model, version, tag, environment)

    def drop_replica(self, model: str, version: str) -> bool:
        """Ask for a replica no longer. False, and nothing is done, while its version serves or is being rolled out."""
        serves = exists().where(
            versions.c.model == model, versions.c.version == version, versions.c.state == "champion"
        )
        rolls_out = exists().where(
            rollouts.c.model == model, rollouts.c.challenger == version, rollouts.c.state == "running"
        )
        with self._engine.begin() as connection:
            result = connection.execute(
                delete(replicas).where(replicas.c.model == model, replicas.c.version == version, ~serves, ~rolls_out)
            )
            return result.rowcount == 1

    def wanted_replicas(self) -> list[Replica]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(replicas).order_by(replicas.c.port))
            return [Replica.model_validate(dict(row._mapping)) for row in rows]

    def _select(self, condition: Any) -> list[RolloutState]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(rollouts).where(condition).order_by(rollouts.c.started_at))
            return [RolloutState.model_validate(dict(row._mapping)) for row in rows]

    def begin_within(
        self,
        connection: Connection,
        model: str,
        challenger: str,
        champion: str | None,
        plan: RolloutPlan,
        cooled: bool,
    ) -> RolloutState:
        """Begin a rollout, or find the one that is under way for this challenger. `offer` says what is raised."""
        running = connection.execute(
            select(rollouts).where(rollouts.c.model == model, rollouts.c.state == "running")
        ).first()
        if running is not None:
            state = RolloutState.model_validate(dict(running._mapping))
            if state.challenger != challenger:
                raise RolloutUnderWayError(state)
            return state
        if not cooled:
            _require_cool(connection, model)
        earlier = connection.execute(
            select(rollouts.c.rollout_id).where(rollouts.c.model == model, rollouts.c.challenger == challenger)
        ).all()
        now = datetime.now(UTC)
        row = {
            "rollout_id": f"{model}-{challenger}-{len(earlier) + 1}",
            "model": model,
            "challenger": challenger,
            "champion": champion,
            "plan": plan.model_dump(mode="json"),
            "step_index": -1,
            "state": "running",
            "started_at": now,
            "entered_at": now,
        }
        connection.execute(rollouts.insert().values(row))
        return RolloutState.model_validate(row)

    def want_within(
        self, connection: Connection, model: str, version: str, tag: str, environment: dict[str, str]
    ) -> Replica:
        """`want_replica` within the caller's transaction."""
        this = (replicas.c.model == model) & (replicas.c.version == version)
        port = connection.scalar(select(replicas.c.port).where(this))
        if port is None:
            taken = set(connection.scalars(select(replicas.c.port)))
            port = next(p for p in range(self._port_first, 65536) if p not in taken)
            connection.execute(
                replicas.insert().values(model=model, version=version, tag=tag, port=port, environment=environment)
            )
        else:
            connection.execute(update(replicas).where(this).values(tag=tag, environment=environment))
        return Replica(model=model, version=version, tag=tag, port=port, environment=environment)


def _require_cool(connection: Connection, model: str) -> None:
    last = connection.execute(
        select(rollouts).where(rollouts.c.model == model).order_by(rollouts.c.started_at.desc()).limit(1)
    ).first()
    if last is None or last.cool_until is None:
        return
    state = RolloutState.model_validate(dict(last._mapping))
    # A clock that was set back must not make it longer than the plan has it.
    left_s = min((last.cool_until - datetime.now(UTC)).total_seconds(), state.plan.cool_down_s)
    if left_s > 0:
        raise CoolingDownError(state, left_s)


def _record(connection: Connection, decision: RolloutDecision) -> None:
    connection.execute(
        rollout_decisions.insert().values(
            rollout_id=decision.rollout_id,
            record=decision.model_dump(mode="json"),
            decided_at=decision.decided_at,
        )
    )


def _crown(connection: Connection, model: str, version: str) -> None:
    of_model = versions.c.model == model
    connection.execute(update(versions).where(of_model, versions.c.state == "champion").values(state="retired"))
    connection.execute(
        update(versions)
        .where(of_model, versions.c.version == version)
        .values(state="champion", live_at=datetime.now(UTC), message=None)
    )


def _send_back(connection: Connection, model: str, version: str, reason: str | None) -> None:
    this = (versions.c.model == model) & (versions.c.version == version)
    live_at = connection.scalar(select(versions.c.live_at).where(this))
    state = "rolled_back" if live_at is None else "retired"
    connection.execute(update(versions).where(this).values(state=state, message=reason))
