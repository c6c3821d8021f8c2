"""``name``: runs of one configuration are distinguished by a name of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import QUICK, Command


def test_a_run_has_the_name_that_is_given_wherever_it_is_named(sparselit: Command, folder: Path) -> None:
    (folder / "run.yaml").write_text("name: dense-0.2\n" + QUICK)
    assert sparselit("fit", "--config", "run.yaml").code == 0
    assert sparselit("fit", "--config", "run.yaml", "--name", "other").code == 0
    results = {}
    for name in ("dense-0.2", "other"):
        results[name] = json.loads((folder / "runs" / name / "version_0/result.json").read_text())
        assert results[name]["name"] == f"{name}/version_0"
    assert results["dense-0.2"]["digest"] == results["other"]["digest"]  # the same computation
    listed = sparselit("runs").out
    assert "dense-0.2/version_0" in listed
    assert "other/version_0" in listed
    for again in (["--config", "runs/other/version_0/config.yaml"], ["--config", "run.yaml", "--name", "other"]):
        code, _, err = sparselit("test", *again, "--ckpt_path", "last")
        assert code == 0, err
    code, _, err = sparselit("fit", "--ckpt_path", "runs/other/version_0", "--trainer.max_steps", "8")
    assert code == 0, err
    assert "run folder runs/other/version_0" in err
    assert sparselit("fit", "--config", "runs/other/version_0/config.yaml").code == 0
    assert (folder / "runs/other/version_1").is_dir()
    (folder / "runs/other").rename(folder / "runs/renamed")
    code, _, err = sparselit("test", "--config", "runs/renamed/version_0/config.yaml", "--ckpt_path", "last")
    assert code == 0, err


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "/tmp/x", ".hidden", "-x", "a b", "a\nb", "x" * 101, "a\x1b[31m", "ä", "a:b", "~"]
)
def test_what_is_no_folder_is_refused_before_anything_is_made(name: str, sparselit: Command, folder: Path) -> None:
    code, _, err = sparselit("fit", "--config", "quick.yaml", f"--name={name}")
    if name == "~":  # YAML's null: no name
        assert code == 0
        return
    assert code == 2
    assert "name must be letters, digits" in err
    assert len(err.splitlines()) <= 2
    assert not (folder / "runs").exists()
