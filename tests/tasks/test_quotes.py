"""Closing quotes, real and synthetic: balanced, without shortcuts."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sparselit.tasks import Quotes
from sparselit.tasks import literals as literals_module
from sparselit.tasks.literals import literals_of, standard_library_literals

from sparselit.errors import SparselitError

SPLITS = ("train", "discovery", "selection", "report")


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    """The literals of this run, kept apart from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        standard_library_literals.cache_clear()
        yield
    standard_library_literals.cache_clear()


@pytest.fixture(scope="module", params=["python", "synthetic", "synthetic_24"])
def task(request, cache_folder):
    return Quotes(request.param.partition("_")[0], length=24 if request.param.endswith("24") else 32)


@functools.cache
def texts(task, split, field="tokens"):
    examples = task.split(split)
    return [task.decode(row[:n]) for row, n in zip(getattr(examples, field), examples.length, strict=True)]


def first_quote(prompt):
    return min((c for c in prompt), key=lambda c: prompt.index(c) if c in "'\"" else 99)


def characters(examples):
    """(example, position) tokens with -1 after the end."""
    tokens = examples.tokens.numpy().copy()
    tokens[np.arange(tokens.shape[1]) >= examples.length.numpy()[:, None]] = -1
    return tokens + 1


def signs(task, examples):
    return np.where(examples.answer.numpy() == task.encode("'")[0], 1, -1)


def accuracy_of_a_lookup(task, train, report):
    """Best single feature on the training split, then its accuracy on each stratum of the report split."""
    best = (0.0, {})
    for column in range(train.shape[1]):
        votes = np.zeros(200)
        np.add.at(votes, train[:, column], signs(task, task.split("train")))
        fitted = np.mean(np.sign(votes[train[:, column]] + 0.5) == signs(task, task.split("train")))
        if fitted > best[0]:
            right = np.sign(votes[report[:, column]] + 0.5) == signs(task, task.split("report"))
            strata = task.split("report").stratum.numpy()
            best = (fitted, {name: right[strata == i].mean() for i, name in enumerate(task.strata)})
    return best[1]


def test_the_answer_is_the_quote_that_opened_the_string(task):
    for split in ("discovery", "report", "out_of_distribution"):
        examples = task.split(split)
        for prompt, answer, wrong in zip(
            texts(task, split), task.decode(examples.answer), task.decode(examples.wrong), strict=True
        ):
            assert {answer, wrong} == {"'", '"'}
            assert first_quote(prompt) == answer
            assert prompt.count(answer) == 1


def test_answers_are_balanced_exactly_on_every_split_and_stratum(task):
    for split in SPLITS:
        sign, stratum = signs(task, task.split(split)), task.split(split).stratum.numpy()
        assert sign.sum() == 0
        assert abs(sign[stratum == 1].sum()) == 0


def test_the_corrupted_prompt_exchanges_the_quotes_and_flips_the_answer(task):
    swap = str.maketrans("'\"", "\"'")
    examples = task.split("report")
    prompts = texts(task, "report")
    corrupted = texts(task, "report", "corrupted")
    assert all(a.translate(swap) == b for a, b in zip(prompts, corrupted, strict=True))
    assert [first_quote(text) for text in corrupted] == list(task.decode(examples.wrong))


def test_splits_are_disjoint_by_prompt_and_corrupted_prompt(task):
    seen: dict[str, str] = {}
    for split in SPLITS:
        assert len(set(texts(task, split))) == len(task.split(split).length)
        for text in {*texts(task, split), *texts(task, split, "corrupted")}:
            assert seen.setdefault(text, split) == split


def test_out_of_distribution_prompts_hold_two_to_four_distractors(task):
    examples = task.split("out_of_distribution")
    for prompt, wrong in zip(texts(task, "out_of_distribution"), task.decode(examples.wrong), strict=True):
        assert 2 <= prompt.count(wrong) <= 4


def test_the_distractor_stratum_is_what_it_says_and_well_filled(task):
    examples = task.split("report")
    held = [text.count(wrong) for text, wrong in zip(texts(task, "report"), task.decode(examples.wrong), strict=True)]
    assert held == examples.stratum.tolist()
    assert 0.22 < np.mean(held) < 0.35


def test_reading_one_fixed_position_scores_chance_on_both_strata(task):
    train, report = characters(task.split("train")), characters(task.split("report"))
    for stratum, accuracy in accuracy_of_a_lookup(task, train, report).items():
        assert abs(accuracy - 0.5) < 0.03, stratum


def test_reading_a_fixed_distance_from_the_end_does_not_solve_it(task):
    def from_the_end(split):
        examples = task.split(split)
        rows = zip(characters(examples), examples.length.tolist(), strict=True)
        return np.stack([np.concatenate([row[:n][::-1], row[n:]]) for row, n in rows])

    assert max(accuracy_of_a_lookup(task, from_the_end("train"), from_the_end("report")).values()) < 0.6


def test_counting_characters_does_not_solve_the_distractor_stratum(task):
    def counts(split):
        examples = task.split(split)
        kept = examples.stratum.numpy() == 1
        rows = characters(examples)[kept]
        bags = np.stack([(rows == token + 1).sum(1) for token in range(task.vocab_size)], 1)
        return bags.astype(float), signs(task, examples)[kept]

    (features, target), (held_out, expected) = counts("train"), counts("report")
    weights = np.linalg.lstsq(features, target, rcond=None)[0]
    assert abs(np.mean(np.sign(held_out @ weights + 1e-9) == expected) - 0.5) < 0.05


def test_drawing_every_split_is_fast():
    began = time.process_time()
    task = Quotes("synthetic")
    assert [len(task.split(split).length) for split in SPLITS] == [32768, 1024, 2048, 10000]
    assert time.process_time() - began < 6  # 1 s on an idle machine


def test_fresh_prompts_are_balanced_too():
    task = Quotes("synthetic", pool=None, batch_size=64)
    batch = next(iter(task.train_dataloader()))
    assert signs(task, batch).sum() == 0


@pytest.mark.parametrize(("key", "value"), [("source", "rust"), ("distractors", 1.5), ("length", 12)])
def test_a_wrong_argument_is_named(key, value):
    with pytest.raises(SparselitError, match=rf"data\.{key} must .* got '?{value}"):
        Quotes(**{key: value})


def digests():
    """One hash per split of small tasks; run in another process too."""
    tasks = (Quotes(pool=1000), Quotes("synthetic", pool=1000))
    splits = (task.split(split) for task in tasks for split in ("train", "out_of_distribution"))
    return [hashlib.sha256(b"".join(field.numpy().tobytes() for field in examples)).hexdigest() for examples in splits]


def test_splits_are_the_same_bytes_in_another_process():
    code = "from tests.tasks.test_quotes import digests; print(*digests())"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert out.stdout.split() == digests(), out.stderr
    assert len(set(out.stdout.split())) == 4


# ---- literals

SOURCE = """
a = 'plain'
b = f"let's {a}" + 'second'
c = 'escaped\\n'
d = '''triple'''
e = ''
call(key=b'bytes')  # and 'this' is a comment
x = 'café'
text = f'''
{g("inside a longer f-string")}
'''
"""


def test_only_ordinary_first_literals_of_a_line_are_taken(tmp_path):
    (tmp_path / "a.py").write_text(SOURCE, encoding="utf-8")
    found = list(literals_of(tmp_path / "a.py"))
    assert found == [("a = ", "plain"), ("b = f", 'let"s {a}'), ("call(key=b", "bytes")]


def test_a_file_that_does_not_tokenize_is_no_error(tmp_path):
    (tmp_path / "a.py").write_text("a = 'fine'\nb = (\n", encoding="utf-8")
    (tmp_path / "b.py").write_bytes(b"\xff\xfe\x00")
    assert list(literals_of(tmp_path / "a.py")) == [("a = ", "fine")]
    assert list(literals_of(tmp_path / "b.py")) == []


@pytest.fixture
def small_library(tmp_path, monkeypatch):
    """A standard library of one file, and an empty cache folder."""
    for folder in ("lib", "lib/test", "lib/site-packages"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a.py").write_text(f"here = '{folder}'\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(literals_module.sysconfig, "get_path", lambda name: str(tmp_path / "lib"))
    return tmp_path


def test_tests_and_installed_packages_are_left_out(small_library):
    assert standard_library_literals.__wrapped__() == [("here = ", "lib")]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"complete": true, "literals": [[1, 2]]}', '{"literals": []}', "é"])
def test_an_unreadable_cache_is_made_anew(small_library, damage):
    read = standard_library_literals.__wrapped__
    expected = read()
    (file,) = (small_library / "cache" / "sparselit").iterdir()
    good = file.read_text()
    file.write_bytes(damage.encode("latin-1"))
    assert read() == expected
    assert file.read_text() == good
    assert json.loads(good)["complete"]


def test_the_cache_is_read_and_a_folder_that_cannot_be_written_is_no_error(small_library, monkeypatch):
    read = standard_library_literals.__wrapped__
    expected = read()
    (small_library / "lib" / "a.py").unlink()
    assert read() == expected
    (small_library / "lib" / "a.py").write_text("here = 'again'\n")
    blocked = small_library / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert read() == [("here = ", "again")]


def test_a_library_without_source_says_what_to_do(small_library):
    (small_library / "lib" / "a.py").unlink()
    with pytest.raises(SparselitError, match=r"data\.source: synthetic"):
        standard_library_literals.__wrapped__()
