"""Several tasks for one model: shared vocabulary, even batches, one behaviour each."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from sparselit.tasks import BracketDepth, Comparison, FirstToken, LastToken, Mixture, Parity

from sparselit.errors import SparselitError

SMALL = {"pool": 200, "discovery": 40, "selection": 40, "report": 60}


def mixture(**arguments):
    return Mixture([Parity(**SMALL), BracketDepth(**SMALL), Comparison(**SMALL)], **arguments)


def text(task, examples, i):
    return task.decode(examples.tokens[i, : examples.length[i]]), task.decode([examples.answer[i]])


@pytest.mark.parametrize("marked", [False, True])
def test_each_prompt_is_its_tasks_own_in_the_shared_vocabulary(marked):
    task = mixture(marked=marked, batch_size=20)
    assert task.strata == ("Parity", "BracketDepth", "Comparison")
    assert task.max_length == 32 + marked
    for split in ("train", "report", "out_of_distribution"):
        examples, start = task.split(split), 0
        assert examples.tokens[torch.arange(examples.tokens.shape[1]) >= examples.length[:, None]].eq(0).all()
        for i, own in enumerate(task.tasks):
            part = own.split(split)
            mark = f"<{task.strata[i]}>" if marked else ""
            for row in (0, len(part.length) - 1):
                prompt, answer = text(own, part, row)
                assert text(task, examples, start + row) == (mark + prompt, answer)
            assert examples.stratum[start : start + len(part.length)].eq(i).all()
            start += len(part.length)
        assert start == len(examples.length)


def test_batches_hold_equally_many_of_each_and_are_a_function_of_the_seed():
    def batches(seed):
        return list(islice(mixture(batch_size=20, seed=seed).train_dataloader(), 3))

    first = batches(0)
    counts = [batch.stratum.bincount(minlength=3).tolist() for batch in first]
    assert all(sum(count) == 20 and max(count) - min(count) == 1 for count in counts)
    assert [sum(column) for column in zip(*counts, strict=True)] == [20, 20, 20]
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, batches(0), strict=True))
    assert not all(torch.equal(a.answer, b.answer) for a, b in zip(first, batches(1), strict=True))


def test_every_task_is_a_behaviour_in_the_vocabulary_of_all():
    task = mixture()
    found = task.behaviours()
    assert list(found) == ["Parity", "BracketDepth", "Comparison"]
    for name, own in zip(found, task.tasks, strict=True):
        behaviour = found[name]
        assert behaviour.vocabulary == list(task.vocabulary)
        assert behaviour.strata == own.strata
        assert behaviour.task["class_path"].endswith(name)
        assert len(behaviour.splits["report"].length) == len(own.split("report").length)
    assert task.hparams["tasks"][0] == {
        "class_path": "sparselit.tasks.parity.Parity",
        "init_args": dict(task.tasks[0].hparams),
    }


def test_prompts_of_two_tasks_need_marks():
    with pytest.raises(SparselitError, match=r"belongs to FirstToken and to LastToken; set marked: true"):
        Mixture([FirstToken(**SMALL), LastToken(**SMALL)]).split("train")
    task = Mixture([FirstToken(**SMALL), LastToken(**SMALL)], marked=True)
    examples = task.split("report")
    for i in (0, len(examples.length) - 1):
        prompt, answer = text(task, examples, i)
        assert task.solve(prompt) == answer
        assert task.encode(prompt) == examples.tokens[i, : examples.length[i]].tolist()


def test_the_same_task_twice_has_two_names_and_one_task_is_no_mixture():
    assert Mixture([Parity(length=8, **SMALL), Parity(length=9, **SMALL)]).strata == ("Parity", "Parity_2")
    with pytest.raises(SparselitError, match=r"data\.tasks must hold two or more tasks, got 1"):
        Mixture([Parity()])
