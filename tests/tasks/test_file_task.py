"""A task from a JSON-lines file: what it reads, and what it says of lines that are wrong."""

from __future__ import annotations

import json

import pytest
from lightning.pytorch import Trainer
from sparselit.tasks import FileTask

from sparselit.data.soundness import examine
from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer

GOOD = {"prompt": "abc=", "answer": "a", "wrong": "b", "corrupted": "bbc="}


def lines():
    for i in range(400):
        first, other = "xy" if i % 2 else "yx"
        yield {"prompt": f"{first}{i:03}=", "answer": first * 2, "wrong": other * 2, "corrupted": f"{other}{i:03}="}


@pytest.fixture
def write(tmp_path):
    def run(*rows):
        path = tmp_path / "my_task.jsonl"
        text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text(text + "\n", encoding="utf-8")
        return str(path)

    return run


def test_characters_and_long_answers_are_tokens_and_every_line_is_used(write):
    task = FileTask(write(*lines()))
    assert {*"xy=0123456789", "xx", "yy"} == set(task.vocabulary)
    assert task.max_length == 5
    assert sum(len(task.split(s).length) for s in ("train", "discovery", "selection", "report")) == 400
    examples = task.split("report")
    assert task.decode([examples.answer[0]]) == 2 * task.decode(examples.tokens[0, :1])
    assert task.split("out_of_distribution") is None


def test_strata_and_empty_lines_and_missing_corrupted_prompts(write):
    rows = [{"prompt": f"{i}", "answer": "a", "wrong": "b", "stratum": "odd" if i % 2 else "even"} for i in range(99)]
    task = FileTask(write(*rows, "", ""))
    assert task.strata == ("even", "odd")
    examples = task.split("train")
    assert examples.corrupted.equal(examples.tokens)


def test_lines_that_share_a_corrupted_prompt_are_all_used_and_stay_in_one_split(write):
    """As they came, 163 of 400 were used and nothing was said."""
    rows = list(lines())
    for number, row in enumerate(rows):
        row["corrupted"] = rows[number // 4 * 4 + (number % 4 in (0, 2))]["prompt"]
    task = FileTask(write(*rows))
    splits = [task.split(name) for name in ("train", "discovery", "selection", "report")]
    assert sum(len(split.length) for split in splits) == 400
    seen = [{*map(task.decode, split.tokens), *map(task.decode, split.corrupted)} for split in splits]
    assert not any(one & other for place, one in enumerate(seen) for other in seen[:place])


def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_it(write):
    first, *others = lines()
    task = FileTask(write("\ufeff" + json.dumps(first), *others))
    assert task.vocabulary == FileTask(write(first, *others)).vocabulary


@pytest.mark.parametrize("key", ["prompt", "answer", "wrong", "corrupted", "stratum"])
def test_half_a_character_is_named_by_line_and_key(write, key):
    row = {**GOOD, key: "a\ud800"}
    with pytest.raises(SparselitError, match=rf"line 2: .*'{key}' holds half a character") as caught:
        FileTask(write(GOOD, row))
    assert len(str(caught.value).encode().splitlines()) == 1


@pytest.mark.parametrize("stratum", ["a.b", ".", "a/b", "", "%2E", "100%", "all", "loss"])
def test_any_text_names_a_stratum(write, stratum, tmp_path):
    rows = [{**row, "stratum": stratum if number % 3 else "a%2Eb"} for number, row in enumerate(lines())]
    task = FileTask(write(*rows), batch_size=8)
    model = SparseTransformer(vocab_size=task.vocab_size, max_length=task.max_length, n_layers=1, d_model=4, n_heads=1)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (figures,) = trainer.validate(model, task, verbose=False)
    every = figures["val/n"]
    assert stratum == "all" or figures[f"val/n/{stratum}"] + figures["val/n/a%2Eb"] == every


def test_a_file_is_checked_like_any_task(write):
    found = examine(FileTask(write(*lines())))
    assert any(
        fault.startswith("last token") or "fixed position" in fault for fault in found.faults
    )  # the first letter


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'prompt': 3}", "line 2: not an example .*: Expecting property name"),
        ("[1, 2]", "line 2: not an example .*: '\\[1, 2\\]' is no mapping"),
        ({"prompt": "abd="}, "line 2: not an example .*: 'answer' is missing"),
        ({**GOOD, "prompt": 3}, "line 2: .*'prompt' must be a text, got 3"),
        ({**GOOD, "label": "a"}, "line 2: .*unknown key 'label'"),
        ({**GOOD, "answer": "b"}, "line 2: the answer and the wrong answer are both 'b'"),
        ({**GOOD, "answer": "c", "corrupted": None}, "line 2: the answer to 'abc=' is 'c', and 'a' in .*line 1"),
        ({**GOOD, "corrupted": "bb="}, "line 2: the corrupted prompt has 3 tokens and the prompt 4"),
        ({**GOOD, "prompt": ""}, "line 2: the prompt must be a text of at least one token"),
    ],
)
def test_a_line_that_is_wrong_is_named_in_one_line(write, row, message):
    with pytest.raises(SparselitError, match=message) as error:
        FileTask(write(GOOD, row))
    assert "my_task.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_answer_outside_of_a_given_vocabulary_and_a_file_that_is_not_there_are_named(write, tmp_path):
    with pytest.raises(SparselitError, match=r"line 1: the answer 'a' is not one token of the vocabulary"):
        FileTask(write({**GOOD, "prompt": "bc=", "corrupted": None}), vocabulary=["b", "c", "="])
    with pytest.raises(SparselitError, match=r"data\.path: cannot read .*nowhere\.jsonl: No such file"):
        FileTask(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(SparselitError, match=r"data\.path: .* holds no examples"):
        FileTask(write())
    with pytest.raises(SparselitError, match=r"data\.train_share must lie in \(0, 1\), got 2"):
        FileTask(write(GOOD), train_share=2)
