"""Every flag of Lightning's Trainer does what its documentation says, or is refused by name before the first step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from .tiny_fits import Fit, command, fit, folder_of_fits, same

#: A gradient that small no longer drowns Adam's epsilon.
SMALL = 1e-8
OBSERVERS = [("own.Batches", {}), ("own.Validations", {})]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, torch.Tensor]]:
    """The weights of the training of which each test changes one thing; its folder is the current one."""
    with folder_of_fits(tmp_path_factory.mktemp("flags")):
        found = fit()
        assert found.code == 0, found.err
        yield found.weights()


def batches() -> list[Any]:
    return list(sys.modules["own"].Batches.seen)


def validations() -> list[int]:
    return list(sys.modules["own"].Validations.at)


def test_flags_that_change_no_step_leave_the_weights_alone(plain):
    found = fit(
        OBSERVERS,
        accelerator="cpu",
        devices=1,
        num_nodes=1,
        precision="32-true",
        logger=False,
        min_epochs=1,
        min_steps=4,
        num_sanity_val_steps=2,
        log_every_n_steps=1,
        deterministic=True,
        benchmark=True,
        inference_mode=False,
        use_distributed_sampler=False,
        detect_anomaly=True,
        sync_batchnorm=True,
        enable_autolog_hparams=False,
        limit_predict_batches=1,
    )
    assert found.code == 0, found.err
    assert same(found.weights(), plain)
    assert validations() == [0, 3, 6]  # the sanity check is one
    assert not list(found.run.glob("events*"))


def test_epochs_are_counted_in_batches_of_the_endless_stream(plain):
    found = fit(
        OBSERVERS,
        max_epochs=3,
        limit_train_batches=2,
        reload_dataloaders_every_n_epochs=1,
        check_val_every_n_epoch=2,
        val_check_interval=1.0,
        max_steps=100,
        enable_progress_bar=True,
    )
    assert found.code == 0, found.err
    assert found.result()["ended"] == "max_epochs"
    assert found.result()["steps"]["done"] == 6
    assert validations() == [4]
    ended = batches()
    assert fit(OBSERVERS).code == 0
    assert batches() == ended  # no batch comes twice


@pytest.mark.parametrize(("number", "expected"), [(2, 2)])
def test_overfit_batches_trains_on_the_same_batches(number, expected, plain):
    found = fit(OBSERVERS, overfit_batches=number)
    assert found.code == 0, found.err
    seen = batches()
    assert len(seen) == 6
    assert all(batch == seen[k % number] for k, batch in enumerate(seen))
    assert len({str(batch) for batch in seen}) == expected
    again = command("fit", "--ckpt_path", "runs/run/version_0", "--trainer.max_steps", "9")
    assert again.code == 0, again.err
    assert batches() == [seen[k % number] for k in (6, 7, 8)]  # also in a run that goes on


@pytest.mark.parametrize(
    ("over", "clip", "more", "equal"),
    [
        ("all", 0, {}, True),
        ("live", 0.0, {}, True),
        ("all", SMALL, {}, False),
        ("live", SMALL, {}, False),
        ("live", SMALL, {"gradient_clip_algorithm": "value"}, False),
    ],
)
def test_gradient_clip_val_clips_and_zero_is_off(over, clip, more, equal, plain):
    model = {"n_layers": 1, "d_model": 8, "n_heads": 2, "gradient_over": over}
    found = fit(more={"model": model}, gradient_clip_val=clip, **more)
    assert found.code == 0, found.err
    assert same(found.weights(), plain) is equal


def test_accumulated_batches_are_one_step(plain):
    found = fit(OBSERVERS, accumulate_grad_batches=2)
    assert found.code == 0, found.err
    assert len(batches()) == 12
    assert found.result()["steps"]["done"] == 6


def test_max_steps_and_max_time_end_the_run_and_say_so(plain):
    assert fit(max_steps=4).result()["ended"] == "max_steps"
    found = fit(max_time={"seconds": 1}, max_steps=10**6, more={"sparsity": None})
    assert found.code == 0, found.err
    assert "Time limit reached" in found.err
    assert found.result()["ended"] == "max_time"


def test_limits_of_validation_and_test(plain):
    found = fit(OBSERVERS, limit_val_batches=0)
    assert found.code == 0, found.err
    assert validations() == []
    assert not [row for row in found.result()["accuracies"] if row["split"] == "val"]
    found = fit(limit_test_batches=0)
    assert found.code == 0, found.err
    assert not [row for row in found.result()["accuracies"] if row["split"] == "report"]
    found = fit(OBSERVERS, val_check_interval=2)
    assert validations() == [2, 4, 6]


@pytest.mark.parametrize(("value", "steps"), [(True, "1 optimizer step and"), (3, "3 optimizer steps and")])
def test_fast_dev_run_says_what_it_did_and_writes_nothing(value, steps, plain):
    found = fit(fast_dev_run=value)
    assert found.code == 0
    assert found.lines == [f"fast_dev_run: {steps} 1 validation batch without an error; nothing was written"]
    assert not Path("runs").exists()


@pytest.mark.parametrize("profiler", ["simple", "advanced"])
def test_profiles_are_printed(profiler, plain):
    found = fit(profiler=profiler)
    assert found.code == 0
    assert "Profiler Report" in found.err
    assert "run_training_batch" in found.err
    assert same(found.weights(), plain)


def test_the_model_summary_is_printed_when_asked_for(plain):
    assert "Trainable params" in fit(enable_model_summary=True).err
    assert "Trainable params" not in fit(enable_model_summary=False).err


def test_a_progress_bar_of_lightning_shows_density_where_it_is_enabled(plain):
    out = fit([("TQDMProgressBar", {"refresh_rate": 2})], enable_progress_bar=True).out
    assert "density/total" in out
    assert "\r" in out  # and no escape of it
    assert fit(enable_progress_bar=False).lines == ["run folder runs/run/version_0"]


def test_without_checkpoints_the_run_still_leaves_its_result(plain):
    found = fit(argv=["--trainer.callbacks", "[]"], enable_checkpointing=False)
    assert found.code == 0, found.err
    assert not list(found.run.rglob("*.ckpt"))
    assert found.result()["checkpoint"] is None


def test_default_root_dir_holds_the_runs(plain):
    found = fit(default_root_dir="elsewhere")
    assert found.code == 0
    assert Path("elsewhere/runs/run/version_0/summary.md").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_precisions_train_and_keep_the_budget(precision, plain):
    found = fit(precision=precision)
    assert found.code == 0, found.err
    assert found.result()["density"]["reached"] == found.result()["density"]["target"]


def test_plugins_are_taken(plain):
    mixed = "lightning.pytorch.plugins.precision.MixedPrecision"
    found = fit(plugins=[{"class_path": mixed, "init_args": {"precision": "bf16-mixed", "device": "cpu"}}])
    assert found.code == 0, found.err
    assert not same(found.weights(), plain)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"barebones": True}, "trainer.barebones is not supported: a run without checkpoints"),
    ({"model_registry": "mine/model"}, "trainer.model_registry is not supported: the checkpoints of a run stay"),
    ({"num_nodes": 2}, "trainer.num_nodes must be 1, got 2"),
    ({"strategy": "ddp_spawn", "devices": 2}, "use strategy: ddp"),
    ({"strategy": "fsdp"}, "requires a GPU accelerator"),
    ({"overfit_batches": 0.5}, "trainer.overfit_batches must be a whole number of batches, got 0.5"),
    ({"limit_train_batches": 0.5}, "limit_train_batches) must be 1.0 or an int"),
    ({"val_check_interval": 0.5}, "val_check_interval should be an integer"),
    ({"gradient_clip_val": -1}, "trainer.gradient_clip_val must be at least 0"),
    ({"gradient_clip_val": 1, "gradient_clip_algorithm": "sum"}, "gradient_clip_algorithm sum is invalid"),
    ({"accelerator": "abacus"}, "invalid accelerator name"),
    ({"devices": 0}, "devices=0"),
    ({"devices": 10**6}, "trainer.devices must be at most"),
    ({"profiler": "watch"}, "it can only be one of ['simple', 'advanced', 'pytorch', 'xla']"),
    ({"precision": "8-true"}, "trainer.precision"),
    ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches must be at least 1"),
    ({"max_steps": 0}, "trainer.max_steps must be at least 1"),
    ({"max_time": "soon"}, "soon"),
    ({"enable_checkpointing": False}, "enable_checkpointing=False"),
]


@pytest.mark.parametrize(("trainer", "text"), REFUSED, ids=[next(iter(trainer)) for trainer, _ in REFUSED])
def test_what_cannot_work_is_refused_before_the_first_step(trainer, text, plain):
    found = fit(**trainer)
    assert found.code == 2
    assert text in found.err
    assert len(found.err.partition("error: ")[2].strip().splitlines()) <= 2
    assert not Path("runs").exists()


def test_a_process_that_was_started_for_another_is_refused(plain, monkeypatch):
    elastic = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    for name, value in {**elastic, "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512"}.items():
        monkeypatch.setenv(name, value)
    found = fit(devices=2)
    assert found.code == 2
    assert "start one: with trainer.devices it starts the others itself" in found.err


def test_a_list_that_an_option_replaces_is_told(plain):
    stop = "[{class_path: EarlyStopping, init_args: {monitor: val/loss}}]"
    told = "trainer.callbacks: [EarlyStopping] replaces [RunCheckpoint]; --trainer.callbacks+=CLASS"
    assert told in fit(argv=["--trainer.callbacks", stop]).err
    Path("overlay.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": ["LearningRateMonitor"]}}))
    assert "[LearningRateMonitor] replaces [RunCheckpoint]" in fit(argv=["--config", "overlay.yaml"]).err
    Path("overlay.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": ["LearningRateMonitor"]}}))
    for argv in (["--config", "overlay.yaml"], ["--trainer.callbacks+=LearningRateMonitor"]):
        found: Fit = fit(argv=argv)
        assert found.code == 0, found.err
        assert "replaces" not in found.err
        saved = yaml.safe_load((found.run / "config.yaml").read_text())["trainer"]["callbacks"]
        assert [row["class_path"].rpartition(".")[2] for row in saved] == ["RunCheckpoint", "LearningRateMonitor"]
