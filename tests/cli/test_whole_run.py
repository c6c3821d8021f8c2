"""A run can be looked at from its beginning: its checkpoints stay, and the circuits of them make a history."""

from __future__ import annotations

from pathlib import Path

from sparselit.runs.folder import checkpoints_in

from .conftest import QUICK, Command


def test_circuits_of_all_checkpoints_make_a_history(sparselit: Command, folder: Path) -> None:
    keep = "init_args: {every_n_steps: 100, keep: all, at: log}"
    (folder / "run.yaml").write_text(QUICK.replace("init_args: {every_n_steps: 2}", keep))
    assert sparselit("fit", "--config", "run.yaml").code == 0
    run = Path("runs/run/version_0")
    saved = checkpoints_in(run / "checkpoints")
    assert list(saved) == [1, 2, 4, 6]
    bound = [
        "--circuits",
        "CircuitDiscovery",
        "--circuits.criterion",
        "[{metric: task_loss, at_most: 9.0}]",
        "--circuits.ablation",
        "zero",
    ]
    for path in list(saved.values())[1:]:
        code, _, err = sparselit("discover", "--ckpt_path", str(path), *bound)
        assert code == 0, err
    code, out, err = sparselit("history", str(run), "--no-picture")
    assert code == 0, err
    assert [row.split()[0] for row in out.splitlines()[1:4]] == ["2", "4", "6"]
