"""A key twice is refused; whatever is saved loads to the same values, the texts that YAML likes to convert first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sparselit.cli.experiment import yaml_text
from sparselit.errors import SparselitError

from .conftest import QUICK, Command

#: Texts that one version of YAML or another reads as something else.
CONVERTED = (
    *("1e3", "1E3", "1.e3", "+1e-3", ".5e1", "0x10", "0o17", "017", "0b11", "1_000", "1_0.5", "190:20:30", ".inf"),
    *("-.inf", ".nan", "inf", "nan", "yes", "no", "on", "off", "y", "n", "true", "True", "null", "Null", "~", "", " "),
    *("=", "<<", "2001-01-01", "2001-01-01T00:00:00Z", "# x", "- a", "a: b", "{", "[", "!a", "&a", "*a", "%", "@", "`"),
    *("'", '"', "|", "a\nb", "a\tb", "\n", " a", "a ", "---", "...", "é", "\x85", "\u2028", "\ufeff", "?", ":", ","),
)
TEXTS = st.text() | st.sampled_from(CONVERTED)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@pytest.mark.parametrize("text", CONVERTED)
def test_a_text_that_yaml_converts_is_saved_as_a_text(text: str) -> None:
    for value in (text, [text], {text: text}, {"a": {"b": [text, 1]}}):
        assert yaml_text.load(yaml_text.dump(value), "here") == value


@given(st.dictionaries(st.sampled_from("abc") | st.text(), VALUES, max_size=3))
@example({"a": 1e3, "b": 1e-7, "c": -0.0})
@example({"a": 10**20, "b": float("inf")})
def test_whatever_is_saved_loads_to_the_same_values(value: dict[str, Any]) -> None:
    loaded = yaml_text.load(yaml_text.dump(value), "here")
    assert loaded == value
    assert repr(loaded) == repr(value)  # also true and 1, 1 and 1.0, 0.0 and -0.0


@pytest.mark.parametrize(
    "words",
    [("1e3", "1E3"), ("yes", "no"), ("0x10", "017"), ("2001-01-01", "1_000"), ("null", "~"), ("# x", "-")],
    ids=str,
)
def test_the_config_of_a_run_holds_its_vocabulary_and_is_taken_again(
    sparselit: Command, folder: Path, words: tuple[str, str]
) -> None:
    """A word 1e3 was saved as 1000.0, so that the run's own configuration was refused; a prompt null was none."""
    rows = [{"prompt": f"{number:02}", "answer": words[0], "wrong": words[1]} for number in range(100)]
    (folder / "task.jsonl").write_text("\n".join(map(json.dumps, rows)))
    vocabulary = [*words, *"0123456789"]
    settings = yaml.safe_load(QUICK)
    settings["data"] = {"class_path": "FileTask", "init_args": {"path": "task.jsonl", "vocabulary": vocabulary}}
    (folder / "one.yaml").write_text(yaml_text.dump(settings))
    code, _, err = sparselit("fit", "--config", "one.yaml")
    assert code == 0, err
    (saved,) = folder.rglob("config.yaml")
    assert yaml_text.read(saved)["data"]["init_args"]["vocabulary"] == vocabulary
    for word in words:
        code, out, err = sparselit("predict", "--ckpt_path", str(saved.parent), "--prompt", word)
        assert code == 0, err
        assert out.startswith(f"{word} → ")
        assert out.count("\n") == 1
    code, _, err = sparselit("fit", "--config", str(saved))
    assert code == 0, err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2\n", 2),
        ("data: Parity\ntrainer:\n  max_steps: 2\n  max_steps: 3\n", 4),
        ("a: {b: 1, b: 1}", 1),
        ("a:\n  - {b: 1}\n  - b: 1\n    'b': 2\n", 4),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, line: int) -> None:
    with pytest.raises(SparselitError, match=rf"f\.yaml, line {line}: .* stands there twice") as caught:
        yaml_text.load(text, "f.yaml")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    ["[" * 3000, "a: " * 3000, "{a: " * 3000, "&a [*a]", "? [a]\n: 1", "\x00", "a: !!python/name:os.system"],
)
def test_what_is_no_configuration_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SparselitError) as caught:
        yaml_text.keys(text, "f.yaml")
    assert len(str(caught.value).splitlines()) == 1
