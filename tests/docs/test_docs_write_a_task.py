"""docs/how_to/write_a_task.md, followed literally in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "write_a_task.md"


def blocks(text):
    """(language, text before the block, content) of every fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1], text[: match.start()], match[2]


def test_the_page_followed_literally_trains_a_new_task(tmp_path):
    ran, said = [], {}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, before, content in blocks(PAGE.read_text(encoding="utf-8")):
        if language:  # a block that no such words stand directly above is only shown
            if saved := re.search(r"Save this as `([^`]+)`[^`]*$", before):
                (tmp_path / saved[1]).write_text(content, encoding="utf-8")
            continue
        for command in content.splitlines():
            done = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            ran.append(command)
            said[command] = done.stdout
    (check,) = (text for command, text in said.items() if "--check" in command)
    assert "fault: bag of characters: this alone gets" in check
    assert check.count("fault") == 1
    assert "1 of 1 tasks unsound" in check
    assert ran[-1] == "sparselit fit --config majority.yaml"
    run = tmp_path / "runs" / "majority" / "version_0"
    assert (run / "config.yaml").is_file()
    assert list((run / "checkpoints").glob("*.ckpt"))
