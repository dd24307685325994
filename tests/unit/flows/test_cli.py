import pytest
from typer.testing import CliRunner

from flows import cli
from lake.settings import load_settings

COMMANDS = [
    "up",
    "down",
    "status",
    "doctor",
    "drop",
    "runs",
    "ledger",
    "models",
    "rollout",
    "ask",
    "lineage",
    "retrain",
    "erase",
    "erasures",
    "demo",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(cli.commands, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 200


def test_no_arguments_show_the_way_in():
    result = CliRunner().invoke(cli.commands, [])
    assert "tidemill demo" in result.output and "TIDEMILL_HOME" in result.output


def run_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr("sys.argv", ["tidemill", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code, capsys.readouterr()


def test_an_error_shows_where_expected_got_and_remedy_and_no_traceback(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    code, shown = run_main(monkeypatch, capsys, "models", "add", str(tmp_path / "missing.yaml"))
    assert code == 1
    for word in ("missing.yaml", "expected", "got", "remedy"):
        assert word in shown.err
    assert "Traceback" not in shown.err + shown.out


def test_a_wrong_recipe_is_refused_with_field_value_and_what_is_allowed(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("name: mill\ntraining: {steps: 0, optimiser: sgd}\n")
    code, shown = run_main(monkeypatch, capsys, "models", "add", str(recipe))
    assert code == 1
    for word in ("training.steps", "training.optimiser", "greater than or equal to 1", "'sgd'"):
        assert word in shown.err


def test_a_wrong_setting_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_GATEWAY_PORT", "http")
    code, shown = run_main(monkeypatch, capsys, "status")
    assert code == 1
    assert "TIDEMILL_GATEWAY_PORT" in shown.err and "'http'" in shown.err


def test_no_store_is_told_with_its_address(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_S3_PORT", "1")
    (tmp_path / "a.txt").write_text("text")
    code, shown = run_main(monkeypatch, capsys, "drop", str(tmp_path / "a.txt"), "--model", "mill")
    assert code == 1
    assert "127.0.0.1:1" in shown.err and "tidemill up" in shown.err
    assert "Traceback" not in shown.err


def test_where_the_webhook_listens_is_shown(capsys, tmp_path):
    cli._where_to_look(load_settings(home=tmp_path))
    assert "events" not in capsys.readouterr().out
    cli._where_to_look(load_settings(home=tmp_path, webhook_port=9500))
    shown = " ".join(capsys.readouterr().out.split())
    assert "events http://127.0.0.1:9500/events (secret: " in shown
    assert "webhook_secret" in shown
