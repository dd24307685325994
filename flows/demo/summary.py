"""The demo's summary: everything that happened, with its evidence, as one JSON document and a few tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from flows.context import Context
from flows.demo.narrator import Narrator
from flows.demo.traffic import Traffic
from flows.lineage import lineage


def summarise(
    context: Context, narrator: Narrator, traffic: Traffic, model: str, dropped: dict[str, int]
) -> dict[str, Any]:
    """Read the summary from the ledger: nothing in it is kept by the demo itself but the clients' own counts."""
    ledger = context.ledger
    datasets = ledger.stages.records("prepare", model)
    evaluations = ledger.stages.records("evaluate", model)
    versions = ledger.versions.all(model)
    retrained = [version for version in versions if version.reason == "drift"]
    champion = ledger.versions.champion(model)
    return {
        "model": model,
        "total_s": round(narrator.elapsed_s, 1),
        "first_live_model_s": narrator.chapters.get("first live model"),
        "chapters_s": narrator.chapters,
        "stages_s": [
            {"stage": stage, "stage_id": identity, "seconds": seconds}
            for stage, identity, seconds in ledger.stages.durations(model)
        ],
        "dropped_bytes": dropped,
        "documents": [
            {
                "dataset_id": record["dataset_id"],
                "drop_id": record["drop_id"],
                "objects": record["n_objects"],
                "read": record["n_read"],
                "kept": record["n_kept"],
                "rejected": record["rejected"],
                "redacted": record["redacted"],
            }
            for record in datasets
        ],
        "evaluations": [
            {
                "version": record["version"],
                "champion": record["champion_version"],
                "passed": record["passed"],
                "perplexity": record["perplexity"],
                "task_accuracy": record["task"],
                "reasons": record["reasons"],
            }
            for record in evaluations
        ],
        "exports": [
            {
                name: record[name]
                for name in (
                    "version",
                    "variant",
                    "parity_max_logit_diff",
                    "parity_top1",
                    "perplexity_fp32",
                    "perplexity_variant",
                    "quantization_loss",
                )
            }
            for record in ledger.stages.records("export", model)
        ],
        "rollouts": [
            {
                "rollout_id": rollout.rollout_id,
                "challenger": rollout.challenger,
                "champion": rollout.champion,
                "outcome": rollout.state,
                "decisions": [d.model_dump(mode="json") for d in ledger.rollouts.decisions(rollout.rollout_id)],
            }
            for rollout in ledger.rollouts.of_model(model)
        ],
        "requests": {
            "answered": dict(traffic.answered),
            "failed": dict(traffic.failed),
            "failed_in_drill": dict(traffic.failed_in_drill),
        },
        "drift": [verdict.model_dump(mode="json") for verdict in ledger.drift_windows.verdicts(model)],
        "retrain": [{"version": version.version, "outcome": version.state} for version in retrained],
        "champion": champion.version if champion else None,
        "lineage": lineage(context, model).as_dict(),
        "urls": {
            "prefect": context.settings.prefect_ui_url,
            "endpoint": f"{context.settings.gateway_url}/v1",
            "reports": {
                "check": [context.bucket.url(r["data_docs_key"]) for r in ledger.stages.records("check", model)],
                "evaluation": [context.bucket.url(record["report_key"]) for record in evaluations],
                "drift": [context.bucket.url(v.report_key) for v in ledger.drift_windows.verdicts(model)],
            },
        },
    }


def print_summary(console: Console, told: dict[str, Any]) -> None:
    """The summary for people: where the time went, what became of the documents, who serves now."""
    console.rule("[bold]Summary[/]", align="left")
    table = Table("chapter", "seconds")
    for title, seconds in told["chapters_s"].items():
        table.add_row(title, f"{seconds:.0f}")
    table.add_row("[bold]all[/]", f"[bold]{told['total_s']:.0f}[/]")
    console.print(table)
    table = Table("dataset", "read", "kept", "rejected, by reason")
    for record in told["documents"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in record["rejected"].items())
        table.add_row(record["dataset_id"], str(record["read"]), str(record["kept"]), reasons)
    console.print(table)
    table = Table("version", "held-out", "base", "champion", "challenger", "gate")
    for record in told["evaluations"]:
        for score in record["perplexity"]:
            champion = f"{score['champion']:.2f}" if score["champion"] else "-"
            row = (f"{score['base']:.2f}", champion, f"{score['challenger']:.2f}")
            table.add_row(record["version"], score["held_out"], *row, "passed" if record["passed"] else "rejected")
    console.print(table)
    table = Table("rollout", "outcome", "last decision")
    for rollout in told["rollouts"]:
        last = rollout["decisions"][-1]["reason"] if rollout["decisions"] else ""
        table.add_row(rollout["rollout_id"], rollout["outcome"], last)
    console.print(table)
    table = Table("requests", "number", "by version")
    for what, counts in told["requests"].items():
        by_version = ", ".join(f"{version} {n}" for version, n in sorted(counts.items()))
        table.add_row(what.replace("_", " "), str(sum(counts.values())), by_version)
    console.print(table)
    console.print(f"drift-triggered retraining: {told['retrain']}; the champion is [bold]{told['champion']}[/]")
