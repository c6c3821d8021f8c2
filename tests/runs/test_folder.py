"""Run folders are numbered, found again whatever the path says, and older ones are not entered unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparselit.errors import SparselitError
from sparselit.runs.folder import RunFolder


def test_run_folders_count_upwards_and_are_found_again(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    first = RunFolder.next(root, "quotes").create()
    assert RunFolder.next(root, "quotes").version == 1
    assert RunFolder(root / "quotes/version_0").create().version == 1  # taken meanwhile
    RunFolder(root / "quotes/version_10").create()
    assert [folder.version for folder in RunFolder.versions(root, "quotes")] == [0, 1, 10]
    with pytest.raises(SparselitError, match="--ckpt_path last: no checkpoint in"):
        RunFolder.newest(root, "quotes")
    first.checkpoint_folder.mkdir()
    for name in ("step=20.ckpt", "step=100.ckpt", "last.ckpt", "step=200.ckpt.1.tmp"):
        (first.checkpoint_folder / name).touch()
    with pytest.raises(SparselitError, match=r"version_10, has no checkpoint yet;.*\n.*--ckpt_path .*version_0$"):
        RunFolder.newest(root, "quotes")  # the newest one holds none, and an older one is not entered unasked
    RunFolder(root / "quotes/version_10").discard()
    RunFolder(root / "quotes/version_1").discard()
    assert RunFolder.newest(root, "quotes") == first
    assert list(first.checkpoints()) == [20, 100]
    assert RunFolder.of(first.checkpoint_folder / "step=20.ckpt") == first
    assert RunFolder.of(first.config) == first
    assert RunFolder.of(tmp_path / "elsewhere/step=20.ckpt") is None
    for folder in RunFolder.versions(root, "quotes"):
        folder.discard()
    assert RunFolder.versions(root, "quotes") == [first]  # a run that made a step stays
    for path in first.checkpoint_folder.iterdir():
        path.unlink()
    first.discard()
    assert not root.exists()


@pytest.mark.parametrize("way", ["straight", "dots", "link to the run", "link to the file", "renamed", "moved"])
def test_a_file_of_a_run_is_known_however_it_is_reached(way: str, tmp_path: Path) -> None:
    run = RunFolder.next(tmp_path / "runs", "quotes").create()
    run.config.write_text("seed_everything: 0\n")
    run.checkpoint_folder.mkdir()
    file, expected = run.checkpoint_folder / "step=1.ckpt", run.path
    file.touch()
    if way == "dots":
        file = (
            tmp_path
            / "runs"
            / "quotes"
            / ".."
            / "quotes"
            / "version_0"
            / "checkpoints"
            / ".."
            / "checkpoints"
            / file.name
        )
    elif way == "link to the run":
        (tmp_path / "best").symlink_to(run.path)
        file = tmp_path / "best" / "checkpoints" / file.name
    elif way == "link to the file":
        (tmp_path / "best.ckpt").symlink_to(file)
        file = tmp_path / "best.ckpt"
    elif way in ("renamed", "moved"):
        expected = run.path.with_name("best") if way == "renamed" else tmp_path / "elsewhere" / "best"
        expected.parent.mkdir(exist_ok=True)
        run.path.rename(expected)
        file = expected / "checkpoints" / file.name
    for path in (file, expected, expected / "config.yaml"):
        found = RunFolder.of(path)
        assert found is not None
        assert found.path == expected.resolve()
        assert found.name == ("best" if way in ("renamed", "moved") else "quotes")
