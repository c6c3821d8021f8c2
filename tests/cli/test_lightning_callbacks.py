"""Every built-in callback of Lightning does what its documentation says, or is refused before the first step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from .tiny_fits import command, fit, folder_of_fits, same

RUN = "runs/run/version_0"
BASES = ("Callback", "Checkpoint", "ProgressBar", "BaseFinetuning", "BasePredictionWriter")
DENSE: dict[str, Any] = {"sparsity": None}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, torch.Tensor]]:
    """The weights of the training to which each test adds a callback; its folder is the current one."""
    with folder_of_fits(tmp_path_factory.mktemp("callbacks")):
        found = fit()
        assert found.code == 0, found.err
        yield found.weights()


def test_callbacks_that_only_watch_leave_the_weights_alone_and_say_what_they_see(plain):
    watching = [
        ("DeviceStatsMonitor", {"cpu_stats": False}),
        ("LearningRateMonitor", {"logging_interval": "step"}),
        ("ModelSummary", {"max_depth": 1}),
        ("SpikeDetection", {}),
        ("ThroughputMonitor", {"batch_size_fn": "own.size", "window_size": 2}),
        ("LambdaCallback", {"on_train_start": "own.begun"}),
        ("EarlyStopping", {"monitor": "val/loss", "verbose": True, "patience": 9}),
        ("Timer", {"duration": {"minutes": 5}, "interval": "step"}),
        ("OnExceptionCheckpoint", {"dirpath": "kept"}),
        ("own.Bar", {}),
        ("own.Writer", {}),
    ]
    csv = {"class_path": "CSVLogger", "init_args": {"save_dir": "."}}
    found = fit(watching, logger=csv, enable_progress_bar=True, log_every_n_steps=1)
    assert found.code == 0, found.err
    assert same(found.weights(), plain)
    assert "Trainable params" in found.err
    assert "Metric val/loss improved. New best score" in found.err
    assert "begun by a function" in found.out
    assert "bar at 6" in found.out
    columns = next(found.run.rglob("metrics.csv")).read_text().splitlines()[0]
    assert "lr/pg1" in columns
    assert "tensorboard" not in found.out
    saved = found.run / "config.yaml"
    again = command("fit", "--config", str(saved))  # the saved configuration, all those classes in it, runs again
    assert again.code == 0, again.err
    one, other = (
        yaml.safe_load((found.run.parent / name / "config.yaml").read_text()) for name in ("version_0", "version_1")
    )
    assert one == other


def test_a_learning_rate_is_found_said_and_trained_with(plain):
    found = fit([("LearningRateFinder", {"num_training_steps": 20})])
    assert found.code == 0, found.err
    rate = float(found.err.partition("Learning rate set to ")[2].split()[0])
    assert found.checkpoint()["hyper_parameters"]["lr"] == rate != 0.003
    model = {"n_layers": 1, "d_model": 8, "n_heads": 2, "lr": rate}
    assert same(found.weights(), fit(more={"model": model}).weights())
    again = command("fit", "--ckpt_path", RUN, "--trainer.max_steps", "7")
    assert again.code == 0, again.err
    assert "Learning rate set to" not in again.err


def test_a_batch_size_is_found_said_and_trained_with(plain):
    found = fit([("BatchSizeFinder", {"max_trials": 2})])
    assert found.code == 0, found.err
    assert "will continue with full run using batch size 4" in found.err
    assert [row["split"] for row in found.result()["accuracies"]] == ["val", "report", "out_of_distribution"]
    again = command("fit", "--ckpt_path", RUN, "--trainer.max_steps", "8")
    assert again.code == 0, again.err
    went_on = again.weights()
    data = {"class_path": "Parity", "init_args": {"batch_size": 4, "pool": 500, "report": 50, "selection": 20}}
    straight = fit(more={"data": data}, max_steps=8, argv=["--sparsity.density.end", "3"])
    assert straight.code == 0, straight.err
    assert went_on.keys() == straight.weights().keys()
    assert again.checkpoint()["datamodule_hyper_parameters"]["batch_size"] == 4


def test_model_checkpoints_keep_the_best_and_best_is_found_again(plain):
    by_loss = ("ModelCheckpoint", {"monitor": "val/loss", "filename": "loss", "save_weights_only": True})
    every = (
        "ModelCheckpoint",
        {"filename": "all-{step}", "save_top_k": -1, "every_n_train_steps": 3, "save_last": True},
    )
    found = fit([by_loss, every])
    assert found.code == 0, found.err
    assert same(found.weights(), plain)
    names = {path.name for path in (found.run / "checkpoints").iterdir()}
    assert names >= {"loss.ckpt", "last.ckpt", "step=4.ckpt", "step=6.ckpt"}
    tested = command("test", "--config", "run.yaml", "--ckpt_path", "best")
    assert tested.code == 0, tested.err
    assert f"the best checkpoint is {RUN}/checkpoints/loss.ckpt" in tested.err
    Path("runs/run/version_0").rename("runs/run/version_7")  # also in a run that was moved
    assert "version_7/checkpoints/loss.ckpt" in command("test", "--config", "run.yaml", "--ckpt_path", "best").err
    assert fit().code == 0
    none = command("test", "--config", "run.yaml", "--ckpt_path", "best")
    assert none.code == 2
    assert "the newest run of this configuration has none; add a ModelCheckpoint with a monitor" in none.err


def test_early_stopping_and_timer_end_the_run_and_say_so(plain):
    stop = {"monitor": "val/loss", "divergence_threshold": 0.0}
    found = fit([("EarlyStopping", stop)], more=DENSE)
    assert found.code == 0, found.err
    assert found.result()["ended"] == "early_stopping"
    assert found.result()["steps"]["done"] == 3
    found = fit([("Timer", {"duration": "00:00:00:01"})], max_steps=10**6, more=DENSE)
    assert found.code == 0, found.err
    assert found.result()["ended"] == "max_time"
    again = command("fit", "--config", f"{RUN}/config.yaml", "--trainer.max_steps", "2")
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("name", "arguments", "model"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 0.01, "swa_epoch_start": 1}, None),
        ("ModelPruning", {"pruning_fn": "l1_unstructured", "amount": 0.5}, "own.Backboned"),
    ],
)
def test_what_writes_weights_runs_alone_and_from_its_saved_configuration(name, arguments, model, plain):
    epochs: dict[str, Any] = {"limit_train_batches": 2, "val_check_interval": 1.0, "check_val_every_n_epoch": 1}
    more = DENSE if model is None else {**DENSE, "model": {"class_path": model}}
    found = fit([(name, arguments)], more=more, **epochs)
    assert found.code == 0, found.err
    assert not same(found.weights(), plain)
    again = command("fit", "--config", f"{RUN}/config.yaml")
    assert again.code == 0, again.err
    assert "Unable to serialize" not in (found.run / "config.yaml").read_text()


def test_what_writes_weights_is_refused_beside_a_budget(plain):
    swa = {"swa_lrs": 0.01, "swa_epoch_start": 1}
    assert "Averaging beside AnnealedSparsity" in fit([("StochasticWeightAveraging", swa)]).err
    pruning = ("ModelPruning", {"pruning_fn": "l1_unstructured", "amount": 0.5})
    assert "ModelPruning beside AnnealedSparsity" in fit([pruning]).err
    assert "use the key sparsity:" in fit([pruning], more=DENSE).err
    assert not Path("runs").exists()


def test_averages_and_accumulation_by_schedule_train(plain):
    for average in ("EMAWeightAveraging", "WeightAveraging"):
        found = fit([(average, {})])
        assert found.code == 0, found.err
        assert found.result()["density"]["reached"] == found.result()["density"]["target"]
    found = fit([("GradientAccumulationScheduler", {"scheduling": {0: 2}}), ("own.Batches", {})])
    assert found.code == 0, found.err
    assert len(sys.modules["own"].Batches.seen) == 12


def test_fine_tuning_freezes_and_releases(plain):
    found = fit([("own.Frozen", {})], more=DENSE)
    assert found.code == 0, found.err
    long, name = found.weights(), "transformer.embed.token.weight"
    short = fit([("own.Frozen", {})], more=DENSE, max_steps=1).weights()
    assert torch.equal(long[name], short[name])
    assert not same(long, short)
    backbone = fit(
        [("BackboneFinetuning", {"unfreeze_backbone_at_epoch": 1, "verbose": True})],
        more={"model": {"class_path": "own.Backboned"}, "sparsity": None},
        limit_train_batches=2,
        limit_val_batches=0,
    )
    assert backbone.code == 0, backbone.err
    assert "Backbone lr" in backbone.err


def test_the_state_at_an_exception_is_kept(plain):
    Path("raising.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Raising(Callback):\n"
        "    def on_train_batch_end(self, trainer, *args):\n"
        "        if trainer.global_step == 3:\n"
        "            raise ValueError('in the middle')\n"
    )
    with pytest.raises(ValueError, match="in the middle"):
        fit([("OnExceptionCheckpoint", {"dirpath": "kept"}), ("raising.Raising", {})])
    assert Path("kept/on_exception.ckpt").exists()
    Path("kept/on_exception.ckpt").unlink()


def test_what_fails_after_the_training_is_a_problem_and_no_loss(plain):
    found = fit([("own.Failing", {})])
    assert found.code == 3
    assert "problem: the report split was not measured: ValueError: not today" in found.err
    assert found.result()["problems"] == ["the report split was not measured: ValueError: not today"]
    assert same(found.weights(), plain)


def test_a_logger_that_takes_pictures_gets_them(plain):
    circuits = {"every_n_steps": 6, "criterion": [{"metric": "task_loss", "at_most": 9.0}], "ablation": "zero"}
    found = fit(logger={"class_path": "own.Album"}, more={"circuits": circuits})
    assert found.code == 0, found.err
    album = sys.modules["own"].Album
    assert album.images == [("circuit", 6, ["Figure"])]
    step, values = album.values[-1]
    assert step == 6
    assert {"circuit/edges", "density/total", "report/accuracy", "steps"} <= values.keys()
    assert {"model/lr", "data/batch_size", "seed", "density/target"} <= album.flat.keys()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *(
        (name, {}, f"{name} is a base that does nothing by itself")
        for name in ("Callback", "Checkpoint", "ProgressBar")
    ),
    *(
        (name, {}, f"{name} is a base that does nothing by itself")
        for name in ("BaseFinetuning", "BasePredictionWriter")
    ),
    ("BackboneFinetuning", {}, "no attribute 'backbone'"),
    ("EarlyStopping", {"monitor": "val_loss"}, "nothing in this run logs 'val_loss'; did you mean 'val/loss'?"),
    ("ModelCheckpoint", {"monitor": "circuit/edges"}, "nothing in this run logs 'circuit/edges'"),
    ("LearningRateMonitor", {}, "Cannot use LearningRateMonitor callback with Trainer that has no logger"),
]


@pytest.mark.parametrize(("name", "arguments", "text"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_cannot_work_is_refused_before_the_first_step(name, arguments, text, plain):
    found = fit([(f"lightning.pytorch.callbacks.{name}", arguments)], logger=False)
    assert found.code == 2
    assert text in found.err
    assert len(found.err.partition("error: ")[2].strip().splitlines()) <= 2
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "package"), [("RichModelSummary", "rich"), ("RichProgressBar", "rich"), ("DeviceStatsMonitor", "psutil")]
)
def test_a_package_that_is_missing_is_named_in_one_line(name, package, plain):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    found = fit([(name, {})], enable_progress_bar=True)
    assert found.code == 2
    assert package in found.lines[-1]
    assert found.lines[-1].startswith("error: ")


def test_two_of_one_kind_need_different_settings(plain):
    found = fit([("ModelCheckpoint", {}), ("ModelCheckpoint", {})])
    assert found.code == 2
    assert "two ModelCheckpoint with the same settings" in found.err


def test_predict_refuses_writers_that_it_would_not_call(plain):
    assert fit([("own.Writer", {})]).code == 0
    found = command("predict", "--config", "run.yaml", "--ckpt_path", "last")
    assert found.code == 2
    assert "Writer: `sparselit predict` prints answers and writes no files" in found.err
