"""Sweeps through the command line: what is tried, pruned, failed, continued, and reported."""

import json
import signal
import time

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hydra_plugins.segtrail.optuna_sweeper import distribution, grid_values
from tests.training.command import SMALL, output, run, start

SWEEP = ["-m", *SMALL, "tracker=none", "callbacks.weight_histograms=null", "trainer.max_epochs=3"]


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def trials(folder):
    (file,) = folder.glob("outputs/*/*/trials.json")
    return json.loads(file.read_text())


def study(folder, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/outputs/sweeps.db")


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("a=choice(x,4,true)", optuna.distributions.CategoricalDistribution(["x", "4", "True"])),
        ("a=x,y", optuna.distributions.CategoricalDistribution(["x", "y"])),
        ("a=range(1,8,3)", optuna.distributions.IntDistribution(1, 7, step=3)),
        ("a=range(0.5,2,0.5)", optuna.distributions.FloatDistribution(0.5, 2.0, step=0.5)),
        ("a=interval(0,2)", optuna.distributions.FloatDistribution(0.0, 2.0)),
        ("a=tag(log,interval(1e-4,1e-1))", optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)),
        ("a=tag(log,int,interval(1,64))", optuna.distributions.IntDistribution(1, 64, log=True)),
    ],
)
def test_hydra_sweeps_become_distributions(sweep, expected):
    (override,) = OverridesParser.create().parse_overrides([sweep])
    assert distribution(override) == expected


def test_axes_of_a_grid():
    assert grid_values(optuna.distributions.IntDistribution(1, 7, step=3)) == [1, 4, 7]
    with pytest.raises(ValueError, match="got an interval"):
        grid_values(optuna.distributions.FloatDistribution(0, 1))


def test_a_sweep_searches_reports_and_names_the_best(tmp_path):
    code = run(
        tmp_path, *SWEEP, "sweep=optuna", "hydra.sweeper.trials=4", "hydra.sweeper.study_name=s", "tags=[t]"
    )
    assert code == 0, output(tmp_path)
    found = trials(tmp_path)
    assert [trial["state"] for trial in found] == ["complete"] * 4
    assert all(set(trial["values"]) == {"loss", "optimizer.lr"} for trial in found)
    best = max(found, key=lambda trial: trial["value"])
    assert f"optimizer.lr={best['values']['optimizer.lr']}" in output(tmp_path).partition("Best: python")[2]
    for number, trial in enumerate(found):
        (file,) = tmp_path.glob(f"outputs/*/*/{number}-*/config.yaml")
        config = OmegaConf.load(file)
        assert config.optimizer.lr == trial["values"]["optimizer.lr"]
        assert list(config.tags) == ["t", "sweep/s"]
    assert len(list(tmp_path.glob("outputs/*/*/sweep.png"))) == 1


def test_pruned_trials_stop_at_their_first_bad_report(tmp_path):
    space = "optimizer.lr=interval(0.001,0.1)"
    assert run(tmp_path, *SWEEP, "sweep=threshold", "hydra.sweeper.trials=2", space) == 0, output(tmp_path)
    for trial in trials(tmp_path):
        assert trial["state"] == "pruned"
        assert list(trial["reports"]) == ["6"]  # of 18 steps


def test_another_kind_of_pruner_is_chosen_by_name(tmp_path):
    chosen = ["pruner=halving", "hydra.sweeper.pruner.min_resource=6", "hydra.sweeper.space=null"]
    space = "optimizer.lr=choice(0.1,1e-9)"
    assert run(tmp_path, *SWEEP, "sweep=optuna", "hydra.sweeper.trials=3", *chosen, space) == 0
    for file in tmp_path.glob("outputs/*/*/*-*/config.yaml"):
        pruner = OmegaConf.load(file).callbacks.pruning.pruner
        assert pruner == {
            "_target_": "optuna.pruners.SuccessiveHalvingPruner",
            "min_resource": 6,
            "reduction_factor": 3,
        }
    found = trials(tmp_path)
    assert found[0]["state"] == "complete"  # none had come to the first rung before
    best = -1.0
    for trial in found:  # of up to three trials at a rung only the best so far goes on
        value = trial["reports"]["6"]
        assert value >= best or list(trial["reports"]) == ["6"]
        best = max(best, value)


def test_a_diverging_trial_is_recorded_and_the_sweep_goes_on(tmp_path):
    space = "optimizer.lr=choice(1e30,0.01)"
    assert run(tmp_path, *SWEEP, "sweep=grid", "optimizer=sgd", space) == 0, output(tmp_path)
    states = {trial["values"]["optimizer.lr"]: trial for trial in trials(tmp_path)}
    assert states["0.01"]["state"] == "complete"
    assert states["1e+30"]["state"] == "fail"
    assert "the loss is" in states["1e+30"]["error"]


def test_a_killed_sweep_continues_without_repeating_trials(tmp_path):
    grid = ["sweep=grid", "model.width=choice(4,8,16)", "optimizer.lr=choice(0.1,0.01)"]
    arguments = [*SWEEP, *grid, "hydra.sweeper.study_name=k"]
    process = start(tmp_path, *arguments)
    while process.is_alive() and not list(tmp_path.glob("outputs/*/*/2-*/config.yaml")):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = {t.number: t.state.name for t in study(tmp_path, "k").trials}
    assert list(before.values()).count("COMPLETE") >= 2
    assert run(tmp_path, *arguments) == 0, output(tmp_path)
    after = study(tmp_path, "k").trials
    complete = [tuple(sorted(t.params.items())) for t in after if t.state.name == "COMPLETE"]
    assert len(complete) == len(set(complete)) == 6
    cut_off = [t for t in after if t.user_attrs.get("interrupted")]
    assert len(cut_off) == len(after) - 6 <= 1
