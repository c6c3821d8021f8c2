"""The command line says where a run is not as sparse as configured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.sparsity.density import density_table

from .conftest import QUICK, Command

WRITER = """\
from lightning.pytorch import Callback


class Refill(Callback):
    def on_train_batch_end(self, trainer, pl_module, *args):
        for parameter in pl_module.parameters():
            parameter.data.add_(1e-3)
"""


def with_callback(folder: Path, class_path: str, **arguments: object) -> None:
    config = yaml.safe_load(QUICK)
    config["trainer"]["callbacks"].append({"class_path": class_path, "init_args": arguments})
    (folder / "run.yaml").write_text(yaml.safe_dump(config))


def saved(folder: Path, step: int = 6) -> dict[str, int]:
    state = load_checkpoint(folder / f"runs/run/version_0/checkpoints/step={step}.ckpt")["state_dict"]
    return {row.name: row.nonzero for row in density_table(state) if len(row.shape) > 1}


def test_an_averaged_model_is_sparse_in_the_checkpoint_and_in_the_summary(sparselit: Command, folder: Path) -> None:
    with_callback(folder, "EMAWeightAveraging", decay=0.9)
    code, out, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    (folder / "plain.yaml").write_text(QUICK)
    assert sparselit("fit", "--config", "plain.yaml")[0] == 0
    state = load_checkpoint(folder / "runs/plain/version_0/checkpoints/step=6.ckpt")["state_dict"]
    assert saved(folder) == {row.name: row.nonzero for row in density_table(state) if len(row.shape) > 1}
    total = next(line for line in out.splitlines() if line.startswith("matrices"))
    assert int(total.split()[2]) == sum(saved(folder).values())


@pytest.mark.parametrize(
    ("class_path", "arguments"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 0.01, "swa_epoch_start": 1, "device": "cpu"}),
        ("ModelPruning", {"pruning_fn": "l1_unstructured", "amount": 0.5}),
    ],
)
def test_what_cannot_keep_the_budget_is_refused_before_training(class_path, arguments, sparselit, folder):
    with_callback(folder, class_path, **arguments)
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 2
    assert f"{class_path} beside AnnealedSparsity" in err
    assert not (folder / "runs").exists()


def test_a_run_whose_weights_were_written_elsewhere_says_so_and_exits_with_3(sparselit, folder):
    (folder / "refill.py").write_text(WRITER)
    with_callback(folder, "refill.Refill")
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 3
    assert err.count("problem: the checkpoint of step 2 has density 1 where ") == 1
    summary = (folder / "runs/run/version_0/summary.md").read_text()
    assert "problem" in summary
    assert "the checkpoint of step 2" in " ".join(summary.split())
    assert "the model after step 6" in " ".join(summary.split())


def test_a_circuit_is_sought_in_the_model_that_the_checkpoint_holds(sparselit, folder):
    config = yaml.safe_load(QUICK)
    config["trainer"]["callbacks"].append({"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}})
    config["circuits"] = {
        "every_n_steps": 6,
        "criterion": [{"metric": "task_loss", "at_most": 9.0}],
        "ablation": "zero",
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    run = folder / "runs/run/version_0"
    circuit = run / "circuits/step=6.json"
    first = circuit.read_bytes()
    code, _, err = sparselit("discover", "--ckpt_path", str(run / "checkpoints/step=6.ckpt"))
    assert code == 0, err
    assert [path.name for path in (run / "circuits").glob("*.json") if "timing" not in path.name] == ["step=6.json"]
    assert circuit.read_bytes() == first
