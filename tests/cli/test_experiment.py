"""fit, validate, test and predict on a tiny task, through the command line."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml

from sparselit.cli.experiment.plugins import GROUP

from .conftest import Command, files_in

FIT = ("fit", "--config", "quick.yaml")


def last_checkpoint(folder: Path, name: str = "quick/version_0") -> Path:
    return max((folder / "runs" / name / "checkpoints").iterdir(), key=lambda path: int(path.stem.partition("=")[2]))


def test_fit_leaves_a_run_folder_that_the_other_commands_start_from(sparselit: Command, folder: Path) -> None:
    code, out, err = sparselit(*FIT)
    assert code == 0, err
    run = folder / "runs/quick/version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step=4.ckpt", "step=6.ckpt"}
    assert yaml.safe_load((run / "config.yaml").read_text())["ckpt_path"] is None
    assert list(run.glob("events*"))
    assert not (run / "hparams.yaml").exists()
    assert files_in(folder) >= {"runs", "quick.yaml"}
    assert {path.name for path in folder.iterdir()} == {"runs", "quick.yaml"}

    summary = (run / "summary.md").read_text()
    assert summary in out
    assert max(map(len, summary.splitlines())) <= 80
    for expected in (
        "Parity",
        "6 steps",
        "report               all",
        "95 % interval",
        "biases, gains, sinks",
        "step=6.ckpt",
    ):
        assert expected in summary

    checkpoint = str((run / "checkpoints/step=6.ckpt").relative_to(folder))
    for command in ("validate", "test"):  # the run's own config.yaml says the rest
        code, out, err = sparselit(command, "--ckpt_path", checkpoint, "--trainer.enable_progress_bar", "false")
        assert code == 0, err
        assert ("val " if command == "validate" else "report") in out
    code, out, _ = sparselit("test", *FIT[1:], "--ckpt_path", "last")
    assert code == 0
    assert "report" in out
    code, out, _ = sparselit("predict", "--ckpt_path", checkpoint, "--prompt", "01101000=")
    assert code == 0
    assert out.startswith("01101000= → '")
    assert out.count("\n") == 1
    assert "(p = 0." in out
    code, out, _ = sparselit("predict", "--ckpt_path", checkpoint, "--n", "3")
    assert out.count("→") == 3
    assert "right" in out or "wrong" in out
    for prompt, expected in (("01x", "'x' in '01x' is not in the vocabulary of Parity"), ("", "--prompt is empty")):
        code, _, err = sparselit("predict", "--ckpt_path", checkpoint, f"--prompt={prompt}")
        assert (code, err.strip()) == (2, f"error: {expected}" if prompt else err.strip())
        assert expected in err
    assert {path.name for path in folder.iterdir()} == {"runs", "quick.yaml"}

    # density agrees with a count by hand
    code, out, _ = sparselit("density", checkpoint, "--json")
    tensors = {row["name"]: row for row in json.loads(out)["tensors"]}
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name, tensor in state.items():
        count = sum(value != 0 for value in tensor.flatten().tolist())
        if name in tensors:
            assert (tensors[name]["nonzero"], tensors[name]["numel"]) == (count, tensor.numel())
    assert "transformer.embed.token.weight" in tensors
    code, out, _ = sparselit("density", checkpoint)
    assert max(map(len, out.splitlines())) <= 80
    assert f"{json.loads(sparselit('density', checkpoint, '--json').out)['total']['nonzero']:,}" in out

    # a checkpoint of another vocabulary or shape
    before = files_in(folder)
    for argv, expected in (
        (
            ("--data", "ModularAddition", "--trainer.max_steps", "9"),
            "was trained on Parity, whose vocabulary 01= (3 tokens)",
        ),
        ((*FIT[1:], "--data.length", "5"), "transformer.embed.position.weight is (13, 8) there and (10, 8) here"),
    ):
        code, _, err = sparselit("fit", *argv, "--ckpt_path", checkpoint)
        assert code == 2
        assert expected in err
        assert len(err.splitlines()) <= 2
    assert files_in(folder) == before


def test_keys_come_from_files_overlays_and_options(sparselit: Command, folder: Path) -> None:
    (folder / "overlay.yaml").write_text("model: {d_model: 4}\nsparsity: {init_args: {density: {to: 0.3}}}\n")
    code, out, err = sparselit(
        *FIT, "--config", "overlay.yaml", "--model.n_layers", "2", "--data", "ModularAddition", "--print_config"
    )
    assert code == 0, err
    merged = yaml.safe_load(out)
    assert merged["model"]["init_args"]["d_model"] == 4
    assert merged["model"]["init_args"]["n_layers"] == 2
    assert merged["sparsity"]["init_args"]["density"]["to"] == 0.3
    assert merged["sparsity"]["init_args"]["density"]["end"] == 0.5
    assert merged["data"]["class_path"].endswith("ModularAddition")
    assert merged["seed_everything"] == 0


def test_a_change_that_drops_settings_is_said(sparselit: Command, folder: Path) -> None:
    once = ("--trainer.fast_dev_run", "true")
    assert (
        "sparsity.density: 0.25 replaces the mapping {end: 0.5, to: 0.2}"
        in sparselit(*FIT, "--sparsity.density", "0.25", *once).err
    )
    err = sparselit(*FIT, "--data.length", "9", "--data", "ModularAddition", *once).err
    assert "data.length: 9 is dropped, ModularAddition has no such argument" in err
    assert not (folder / "runs").exists()  # fast_dev_run writes nothing


def test_without_a_config_the_run_is_named_after_the_task(sparselit: Command, folder: Path) -> None:
    code, out, err = sparselit(
        "fit", "--data", "Parity", "--data.pool", "100", "--data.report", "20", "--model.d_model", "8",
        "--trainer.max_steps", "2", "--trainer.enable_progress_bar", "false", "--trainer.logger", "false",
        "--trainer.accelerator", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert (folder / "runs/parity/version_0/summary.md").exists()
    assert not list((folder / "runs/parity/version_0").glob("events*"))
    assert "density" in out.lower()


def test_resuming_uses_the_checkpoints_hyper_parameters_and_says_so(sparselit: Command, folder: Path) -> None:
    sparselit(*FIT, "--trainer.max_steps", "4")
    code, _, err = sparselit(
        *FIT, "--ckpt_path", "last", "--model.d_model", "16", "--model.lr", "0.5", "--data.seed", "3"
    )
    assert code == 0, err
    assert "model.d_model: 8 from the checkpoint, not 16" in err
    assert "model.lr: 0.003 from the checkpoint, not 0.5" in err
    assert "data.seed: 3 from now on, 0 until step 4" in err
    assert "resuming from step 4 (runs/quick/version_0/checkpoints/step=4.ckpt)" in err
    assert [path.name for path in (folder / "runs/quick").iterdir()] == ["version_0"]
    assert last_checkpoint(folder).name == "step=6.ckpt"

    # the run folder's own file names the same run
    code, _, err = sparselit("fit", "--config", "runs/quick/version_0/config.yaml", "--ckpt_path", "last")
    assert code == 0
    assert "nothing left to train" in err

    # a path begins a new folder: nothing that came after it is lost
    code, _, err = sparselit(*FIT, "--ckpt_path", "runs/quick/version_0/checkpoints/step=4.ckpt")
    assert code == 0
    assert (folder / "runs/quick/version_1/checkpoints/step=6.ckpt").exists()


def test_a_refusal_after_the_folder_was_made_removes_it(
    sparselit: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparselit.errors import SparselitError
    from sparselit.modules import SparseTransformer

    def refuse(self: object) -> None:
        raise SparselitError("too late")

    monkeypatch.setattr(SparseTransformer, "configure_optimizers", refuse)
    code, _, err = sparselit(*FIT)
    assert code == 2
    assert err.endswith("error: too late\n")
    assert not (folder / "runs").exists()


def test_a_third_party_plug_in_is_loaded_by_its_entry_point(
    sparselit: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "third_party.py").write_text(
        "from sparselit.data.task import Task\nclass Elsewhere(Task):\n    vocabulary, max_length = '01', 4\n"
    )
    (folder / "broken_plugin.py").write_text("import no_such_module\n")
    entries = [EntryPoint("elsewhere", "third_party", GROUP)]
    monkeypatch.setattr("sparselit.cli.experiment.plugins.entry_points", lambda group: entries)
    code, out, err = sparselit("fit", "--data", "Elsewhere", "--print_config")
    assert code == 0, err
    assert yaml.safe_load(out)["data"]["class_path"] == "third_party.Elsewhere"
    entries.append(EntryPoint("broken", "broken_plugin", GROUP))
    code, _, err = sparselit("fit", "--data", "Elsewhere", "--print_config")
    assert code == 2
    assert "error: the plug-in 'broken' (broken_plugin) cannot be loaded: No module named 'no_such_module'" in err


def test_any_lightning_module_trains_without_the_linked_arguments(sparselit: Command, folder: Path) -> None:
    (folder / "own_model.py").write_text(
        "import torch\nfrom lightning.pytorch import LightningModule\n"
        "class Counting(LightningModule):\n"
        "    def __init__(self, width: int = 4):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(9, width)\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return self.linear(batch.tokens.float()).square().mean()\n"
        "    def validation_step(self, batch, batch_idx):\n"
        "        pass\n"
        "    def configure_optimizers(self):\n"
        "        return torch.optim.SGD(self.parameters(), 0.01)\n"
    )
    (folder / "own.yaml").write_text(
        "data: {class_path: Parity, init_args: {pool: 100}}\nmodel: {class_path: own_model.Counting}\n"
        "sparsity: {class_path: StaticSparsity, init_args: {density: 0.5}}\n"
        "trainer: {max_steps: 2, accelerator: cpu, enable_progress_bar: false, val_check_interval: 1}\n"
    )
    code, out, err = sparselit("fit", "--config", "own.yaml")
    assert code == 0, err
    assert "Counting, 40 parameters" in out
