"""The whole loop, as `tidemill demo` plays it, with a tiny model: every stage, every process, every decision is real."""

import json
import subprocess

import pytest
import yaml

from flows.demo.story import RECIPE
from tests.installation import TIDEMILL, ending_all, environment, processes_of
from tests.tiny_model import write_tiny_model

MIN_GAIN = 0.03
pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1_500)]


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["base_model"] = f"file:{write_tiny_model(folder / 'tiny')}"
    recipe["training"] |= {"steps": 40, "learning_rate": 5e-3, "sequence_length": 64}
    # A random model guesses at the tasks, and an adapter between its frozen embeddings can gain 9% at most.
    recipe["gate"] |= {"max_task_drop": 1.0, "held_out_tokens": 1024, "min_gain_over_base": MIN_GAIN}
    for check in recipe["rollout"]["checks"]:
        if check["metric"].startswith(("latency", "first_token")):
            check["margin"] = 50.0  # it answers in milliseconds: a scheduler's hiccup is a multiple of that
        if check["metric"] in ("repetition", "language"):
            check["margin"] = 1.0  # a random model babbles
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    home, told = folder / "home", folder / "summary.json"
    with ending_all(home / "demo"):
        done = subprocess.run(
            [TIDEMILL, "demo", "--recipe", str(folder / "recipe.yaml"), "--summary", str(told)],
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=1_400,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        assert processes_of(home / "demo") == []
    return json.loads(told.read_text())


def test_documents_are_counted_by_what_became_of_them(summary):
    for dataset in summary["documents"]:
        assert dataset["read"] == dataset["kept"] + sum(dataset["rejected"].values())
    reasons = {reason for dataset in summary["documents"] for reason in dataset["rejected"]}
    assert {"truncated_gzip", "bad_encoding", "exact_duplicate", "near_duplicate"} <= reasons
    assert sum(dataset["read"] for dataset in summary["documents"]) >= 2_500
    assert sum(summary["dropped_bytes"].values()) > 0


def test_every_challenger_passed_the_gate(summary):
    assert [evaluation["version"] for evaluation in summary["evaluations"]] == ["v1", "v2", "v3"]
    for evaluation in summary["evaluations"]:
        new = next(score for score in evaluation["perplexity"] if score["held_out"] == "new")
        assert evaluation["passed"] and new["challenger"] <= (1 - MIN_GAIN) * new["base"]


def test_exports_agree_with_torch(summary):
    for export in summary["exports"]:
        assert export["parity_top1"] >= 0.99
        assert export["quantization_loss"] <= 0.015


def test_the_second_version_went_through_every_stage(summary):
    decisions = summary["rollouts"][1]["decisions"]
    promoted = [(d["from_stage"], d["to_stage"]) for d in decisions if d["action"] == "promote"]
    assert promoted == [("shadow", "ab"), ("ab", "canary"), ("canary", "canary"), ("canary", "full")]
    assert all(d["challenger_stats"]["n_requests"] > 0 for d in decisions if d["action"] == "promote")


def test_the_faulty_challenger_was_rolled_back_on_evidence(summary):
    drill = summary["rollouts"][2]
    assert (drill["challenger"], drill["outcome"]) == ("v1", "rolled_back")
    assert drill["decisions"][-1]["challenger_stats"]["n_errors"] > 0


def test_no_client_request_failed_outside_the_drill(summary):
    assert sum(summary["requests"]["failed"].values()) == 0
    assert {"docs-assistant/v1", "docs-assistant/v2", "docs-assistant/v3"} <= set(summary["requests"]["answered"])


def test_drift_was_confirmed_and_the_retrained_version_won(summary):
    verdicts = summary["drift"]
    assert not verdicts[0]["drifted"]
    assert any(verdict["confirmed"] for verdict in verdicts)
    assert summary["retrain"] == [{"version": "v3", "outcome": "champion"}]
    assert summary["champion"] == "v3"


def test_lineage_reaches_from_the_champion_to_source_objects(summary):
    def names(node):
        yield node["kind"], node["name"]
        for child in node["children"]:
            yield from names(child)

    found = set(names(summary["lineage"]))
    assert ("model", "docs-assistant/v1") in found
    assert ("object", "s3://tidemill/inbox/docs-assistant/science/pandas.parquet") in found
