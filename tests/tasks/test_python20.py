"""The twenty tasks on Python, under characters and under a byte-pair encoding: true, apart, and cut as real code is."""

from __future__ import annotations

import ast
import functools
import json
import random

import pytest
from sparselit.tasks.python20 import ANSWERS, PYTHON20

from sparselit.data.soundness import examine
from sparselit.data.splits import SPLITS
from sparselit.data.tokenizer import LongestMatch, Tokenizer
from sparselit.errors import SparselitError

SIZES = {"pool": 600, "discovery": 100, "selection": 100, "report": 300}
#: What goes on after an answer, so that the whole is a program.
ENDINGS = {
    " in": " x:\n{i}    pass",
    ":\n": "{i}    pass",
    "):\n": "{i}    pass",
    " as": " x:\n{i}    pass",
    " and": " x:\n{i}    pass",
    " open": "(x) as y:\n{i}    pass",
    " self": ".x:\n{i}    pass",
    " isinstance": "(x, y):\n{i}    pass",
    " else": " 0",
    " ==": " 0:\n{i}    pass",
    " =": " 0",
    " +=": " x",
    ".add": "(x)",
    "}": '"',
    ",": "x=0)",
    ":": " 0",
    " enumerate": "(x):\n{i}    pass",
    " range": "(x):\n{i}    pass",
    " __": "init__(self):\n{i}    pass",
    " f": "():\n{i}    pass",
    " " * 7: " pass",
    " " * 11: " pass",
}
#: Tasks whose wrong answer does not go on to a program: here the syntax alone decides.
SYNTAX = {
    *("single_double_quote", "bracket_counting", "else_elif", "if_ternary", "bracket_brace"),
    *("while_return_true", "lambda_func"),
}


class Bpe:
    """A byte-pair encoding of the tasks' own prompts, every answer one token."""

    def __init__(self, seeds: tuple[str, ...]) -> None:
        tokenizers = pytest.importorskip("tokenizers")
        split = r"[ ._]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        steps = tokenizers.pre_tokenizers
        fast = tokenizers.Tokenizer(tokenizers.models.BPE())
        fast.pre_tokenizer = steps.Sequence(
            [steps.Split(tokenizers.Regex(split), "isolated"), steps.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        fast.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=900, show_progress=False)
        texts = [
            example.prompt + example.answer
            for task in (cls() for cls in PYTHON20.values())
            for example in map(task.sample, map(random.Random, range(60)))
        ]
        fast.train_from_iterator(texts, trainer)
        for seed in seeds:  # further merges at the end: nothing else is cut in another way
            while len(pieces := fast.encode(seed).tokens) > 1:
                state = json.loads(fast.to_str())
                state["model"]["vocab"].setdefault("".join(pieces[:2]), len(state["model"]["vocab"]))
                state["model"]["merges"].append(pieces[:2])
                fast = tokenizers.Tokenizer.from_str(json.dumps(state))
        self._fast, self.size = fast, fast.get_vocab_size()
        self.vocabulary = [fast.decode([token]) for token in range(self.size)]

    def words(self, text: str) -> list[str]:
        return [self.vocabulary[token] for token in self.encode(text)]

    def encode(self, text: str) -> list[int]:
        return self._fast.encode(text).ids

    def decode(self, tokens) -> str:
        return self._fast.decode(list(tokens))


@functools.cache
def bpe(seeds: tuple[str, ...] = ANSWERS) -> Tokenizer:
    return Bpe(seeds)


@pytest.fixture(scope="module", params=["characters", "bpe"])
def kind(request) -> str:
    return request.param


@functools.cache
def make(name: str, kind: str):
    task = PYTHON20[name](**SIZES)
    if kind == "bpe":
        task.tokenizer = bpe()
    return task


def parses(text: str, answer: str) -> bool:
    """Whether a snippet that is cut out of a program goes on with an answer to a valid one."""
    line = text.rstrip("\n").rpartition("\n")[2]
    indent = line[: len(line) - len(line.lstrip())]
    levels = (
        0 if not text.startswith(" ") else min(len(i) - len(i.lstrip()) for i in text.split("\n") if i.strip()) // 4
    )
    head = "".join("    " * level + "if 1:\n" for level in range(levels))
    body = text + answer + ENDINGS.get(answer, "").format(i=indent)
    try:
        ast.parse(head + body)
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize("name", PYTHON20)
def test_a_task_is_sound_under_both_tokenizers(name, kind):
    found = examine(make(name, kind))
    assert found.faults == ()
    assert found.verified == found.corrupted


@pytest.mark.parametrize("name", PYTHON20)
def test_an_answer_is_cut_as_the_next_token_of_its_prompt(name, kind):
    task, rng = make(name, kind), random.Random(5)
    encode, seen = task.tokenizer.encode, set()
    for draw in [task.sample] * 60 + [task.sample_out_of_distribution] * 30:
        prompt, answer, wrong, corrupted, _ = draw(rng)
        assert encode(prompt + answer) == encode(prompt) + encode(answer)
        assert encode(corrupted + wrong) == encode(corrupted) + encode(wrong)
        assert len(encode(answer)) == len(encode(wrong)) == 1
        assert len(encode(prompt)) == len(encode(corrupted)) <= task.max_length
        assert (task.solve(prompt), task.solve(corrupted)) == (answer, wrong)
        assert task.family(prompt) == task.family(corrupted)
        assert {answer, wrong} <= set(task.possible_answers())
        seen |= {answer}
    assert len(seen) == len(task.possible_answers())


@pytest.mark.parametrize("name", PYTHON20)
def test_answers_are_balanced_and_splits_disjoint(name, kind):
    task = make(name, kind)
    held = {}
    for split in ("train", *SPLITS):
        examples = task.split(split)
        held[split] = {task.decode(row[:n]) for row, n in zip(examples.tokens, examples.length.tolist(), strict=True)}
        assert (examples.tokens != examples.corrupted).any(1).all()
        if split != "out_of_distribution":
            counts = examples.answer.unique(return_counts=True)[1]
            assert len(counts) > 2 or abs(int(counts[0] - counts[1])) <= 0.1 * len(examples.answer)
    assert len(held["report"]) == SIZES["report"]
    assert sum(map(len, held.values())) == len(set().union(*held.values()))


@pytest.mark.parametrize("name", PYTHON20)
def test_a_draw_is_a_function_of_its_generator(name, kind):
    task, other = make(name, kind), PYTHON20[name](**SIZES)
    other.tokenizer = task.tokenizer
    for draw in ("sample", "sample_out_of_distribution"):
        one, two = ([getattr(t, draw)(random.Random(seed)) for seed in range(8)] for t in (task, other))
        assert one == two
        assert len(set(one)) > 6


@pytest.mark.parametrize("name", PYTHON20)
def test_a_prompt_goes_on_with_its_answer_to_valid_python(name, kind):
    task = make(name, kind)
    for seed in range(60):
        draw = task.sample if seed < 40 else task.sample_out_of_distribution
        prompt, answer, wrong, *_ = draw(random.Random(seed))
        assert parses(prompt, answer), prompt
        if name in SYNTAX:
            assert not parses(prompt, wrong), prompt


@pytest.mark.parametrize("name", PYTHON20)
def test_prompts_are_short(name, kind):
    lengths = make(name, kind).split("report").length.float()
    assert lengths.quantile(0.95) <= (60 if kind == "bpe" else 160)


def test_a_tokenizer_that_splits_an_answer_is_an_error_of_one_line_that_names_it():
    task = PYTHON20["enumerate_range"](**SIZES)
    task.tokenizer = LongestMatch([*map(chr, range(32, 127)), "\n", " range"], "Other")
    with pytest.raises(SparselitError, match=r"^EnumerateRange: .* ' enumerate' into several tokens; .*") as caught:
        task.split("report")
    assert len(str(caught.value).splitlines()) == 1


def test_a_tokenizer_that_joins_prompt_and_answer_is_an_error_that_names_the_pair():
    task = PYTHON20["with_as"](**SIZES)
    task.tokenizer = LongestMatch([*map(chr, range(32, 127)), "\n", " as", " and", ") as", ") and"], "Other")
    with pytest.raises(SparselitError, match=r"^WithAs: .* such as '.*\)'; .*' as'") as caught:
        task.split("report")
    assert len(str(caught.value).splitlines()) == 1


def test_a_task_trains_on_its_own_alphabet_and_knows_all_answers():
    assert len(PYTHON20) == 20
    assert len(ANSWERS) == len(set(ANSWERS))
    for cls in PYTHON20.values():
        task = cls(**SIZES)
        assert set(task.possible_answers()) <= set(ANSWERS)
        assert set(task.possible_answers()) <= set(task.vocabulary)
