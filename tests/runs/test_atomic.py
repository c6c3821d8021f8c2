"""Writing files: whole or not at all, whoever dies meanwhile, and in this one way everywhere."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparselit.runs.atomic import remove_leftovers, write_atomically, write_bytes, write_text

ROOT = Path(__file__).parents[2]
NO_PROCESS = 2**22 + 1  # above the largest number that a process can have


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, lambda file: file.write(b"old"))

    def fail(file: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_folders_are_made_and_a_text_is_written_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "text [1].md"
    write_text(target, "quote „“\r\nend\n")
    assert target.read_bytes() == "quote „“\r\nend\n".encode()


def test_what_dead_processes_left_goes_and_what_a_running_one_writes_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = os.getppid()
    for process in (dead.pid, NO_PROCESS, 10**30, os.getpid(), alive):
        (tmp_path / f"file.{process}.tmp").touch()
    (tmp_path / "mine.tmp").touch()  # of somebody else
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [f"file.{alive}.tmp", "mine.tmp"]
    remove_leftovers(tmp_path / "nowhere")


def test_writing_a_file_removes_the_leftovers_of_that_file(tmp_path: Path) -> None:
    for name in ("step=1.json", "step=2.json"):
        (tmp_path / f"{name}.{NO_PROCESS}.tmp").touch()
    write_bytes(tmp_path / "step=1.json", b"{}")
    assert names(tmp_path) == ["step=1.json", f"step=2.json.{NO_PROCESS}.tmp"]


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_bytes(target, b"old")
    program = (
        "import os, signal, sys; from pathlib import Path; from sparselit.runs.atomic import write_atomically\n"
        "def die(file): file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path(sys.argv[1]), die)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    write_bytes(target, b"new")
    assert names(tmp_path) == ["file"]


def test_two_processes_that_write_one_file_do_not_mix_their_bytes(tmp_path: Path) -> None:
    target = tmp_path / "file"
    program = (
        "import sys; from pathlib import Path; from sparselit.runs.atomic import write_bytes\n"
        "for _ in range(40): write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 100_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(target), letter]) for letter in "ab"]
    seen: set[bytes] = set()
    while any(writer.poll() is None for writer in writers):
        if target.exists():
            content = target.read_bytes()
            assert content in (b"a" * 100_000, b"b" * 100_000)
            seen.add(content)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("folder", ["sparselit", "tasks", "callbacks"])
def test_nothing_writes_a_file_in_another_way(folder: str) -> None:
    """Every call that could write a path: by name, and ``open`` with a mode that writes."""
    writers = {"write_text", "write_bytes", "savefig", "save_file", "rename", "replace_file", "NamedTemporaryFile"}
    for path in sorted((ROOT / folder).rglob("*.py")):
        if path == ROOT / "sparselit" / "runs" / "atomic.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "write_atomically"
            for inner in ast.walk(node)
        }
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = ast.unparse(node.func)
            where = f"{path}:{node.lineno}: {name}"
            if id(node) not in inside:
                assert not ("." in name and name.rpartition(".")[2] in writers), where
                assert name not in ("os.replace", "os.rename", "torch.save", "json.dump", "shutil.copyfile"), where
            if name.rpartition(".")[2] == "open" and name != "os.open":
                modes = [
                    a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)
                ]
                assert not any(set("wax+") & set(mode) and len(mode) <= 3 for mode in map(str, modes)), where
