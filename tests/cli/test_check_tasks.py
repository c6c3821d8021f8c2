"""``sparselit tasks --check``: a table, notes, and an exit code that a script can use."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Command

TASK = """\
from sparselit import Example, Task


class Sound(Task):
    vocabulary, max_length = "abc=", 10

    def sample(self, rng):
        first, wrong, *_ = letters = rng.sample("abc", 3)
        start = "".join(rng.choices("abc", k=rng.randint(2, 5)))
        return Example(f"{start}={first}={''.join(letters[1:])}", first, wrong)


class Unsound(Sound):
    def sample(self, rng):
        return super().sample(rng)._replace(answer="a", wrong="b")
"""
FAULTY = (Path(__file__).parents[1] / "planted.py").read_text(encoding="utf-8")


def test_a_shipped_task_is_green(sparselit: Command) -> None:
    code, out, err = sparselit("tasks", "--check", "Parity", "LastToken")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert " ".join(lines[0].split()) == "% of held-out prompts n chance major. last pos. bag seen"
    assert lines[1].startswith("Parity ")
    assert "* bag: the parity is a function of the number of ones" in out
    assert max(map(len, lines)) <= 80


def test_a_task_of_the_users_own_folder_is_found_by_its_import_path(sparselit: Command, folder: Path) -> None:
    (folder / "my_checked_tasks.py").write_text(TASK)
    code, out, _ = sparselit("tasks", "--check", "my_checked_tasks.Unsound")
    assert code == 1
    assert "fault: the answer 'a' is right for 100.0 % of the prompts" in out
    assert out.endswith("1 of 1 tasks unsound\n")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Leak", "the splits train and report share"),
        ("Imbalance", "the answer 'a' is right for"),
        ("Shortcut", "fixed position: this alone gets 100.0 % of held-out prompts right"),
        ("Visible", "answer visible: this alone gets 100.0 % of held-out prompts right"),
        ("Unflipped", "does not flip the answer to"),
    ],
)
def test_each_planted_fault_turns_the_command_red(sparselit: Command, folder: Path, name: str, fault: str) -> None:
    (folder / "faulty_tasks.py").write_text(FAULTY)
    code, out, _ = sparselit("tasks", "--check", f"faulty_tasks.{name}", "faulty_tasks.Majority")
    assert code == 1
    assert fault in " ".join(out.split())
    assert out.endswith("1 of 2 tasks unsound\n")  # without the fault it is sound


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Paritty", "no task is called 'Paritty'; did you mean 'Parity'?"),
        ("FileTask", "FileTask cannot be made without arguments"),
        ("nowhere.Task", "no task is called 'nowhere.Task': No module named 'nowhere'"),
    ],
)
def test_a_name_that_means_nothing_is_one_line(sparselit: Command, name: str, message: str) -> None:
    code, _, err = sparselit("tasks", "--check", name)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
