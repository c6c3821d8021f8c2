"""The base of every task: splits, stream, contract."""

from __future__ import annotations

import hashlib
import random
import time
from itertools import islice

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from sparselit.data.examples import Examples
from sparselit.data.splits import split_of
from sparselit.data.task import Example, Task
from sparselit.errors import SparselitError

#: Lightning itself uses a name that its torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")

SPLITS = ("train", "discovery", "selection", "report")


class First(Task):
    """The first letter: `bcaab=` → `b`."""

    vocabulary = " abc="
    max_length = 9

    def sample(self, rng):
        letters = "".join(rng.choices("abc", k=rng.randint(4, 8)))
        wrong = rng.choice([c for c in "abc" if c != letters[0]])
        return Example(letters + "=", letters[0], wrong, wrong + letters[1:] + "=")


class Table(Task):
    vocabulary = "0123456789="

    def examples(self):
        for i in range(1000):
            yield Example(f"{i:03}=", str(i % 10), str((i + 1) % 10))


def prompts(task, split):
    examples = task.split(split)
    return [task.decode(row[:n]) for row, n in zip(examples.tokens, examples.length, strict=True)]


def corrupted(task, split):
    examples = task.split(split)
    return [task.decode(row[:n]) for row, n in zip(examples.corrupted, examples.length, strict=True)]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def digest(task):
    sha = hashlib.sha256()
    for split in SPLITS:
        for field in task.split(split):
            sha.update(field.numpy().tobytes())
    return sha.hexdigest()


# ---- splits


@pytest.mark.parametrize("make", [Table, lambda: First(pool=500, report=500)])
def test_splits_are_disjoint_by_prompt_and_corrupted_prompt_and_hold_no_prompt_twice(make):
    task = make()
    seen: dict[str, str] = {}
    for split in SPLITS:
        drawn = prompts(task, split)
        assert len(drawn) == len(set(drawn)) > 0
        for text in {*drawn, *corrupted(task, split)}:
            assert seen.setdefault(text, split) == split


def test_what_is_held_out_is_the_same_for_every_seed():
    one, other = First(pool=500, report=500), First(pool=500, report=500, seed=1)
    assert prompts(one, "report") != prompts(other, "report")
    assert not set(prompts(one, "train")) & set(prompts(other, "report"))


def test_splits_do_not_depend_on_the_order_in_which_they_are_asked_for():
    forward, backward = (First(pool=600, report=300) for _ in range(2))
    for split in reversed(SPLITS):
        backward.split(split)
    assert digest(forward) == digest(backward)


def test_a_finite_domain_fills_the_splits_with_all_it_has():
    task = Table()
    sizes = [len(prompts(task, split)) for split in SPLITS]
    assert sum(sizes) == 1000
    assert sizes[0] == pytest.approx(500, abs=60)
    assert sizes[3] == pytest.approx(250, abs=50)


def test_an_endless_task_with_a_small_domain_stops_drawing():
    task = First()  # 3^4 + … + 3^8 = 9801 prompts
    began = time.process_time()
    sizes = [len(prompts(task, split)) for split in SPLITS]
    assert time.process_time() - began < 10
    assert 3000 < sizes[0] < 5000
    assert sizes[3] < 2500


def test_the_bucket_of_bit_strings_is_not_a_linear_function_of_the_bits():
    train = [i for i in range(256) if split_of(f"{i:08b}", 0.5) == "train"]
    inside = set(train)
    closed = sum((a ^ b ^ c) in inside for a, b, c in zip(train, train[1:], train[2:], strict=False))
    assert 0.2 * len(train) < closed < 0.8 * len(train)  # a plane would be closed under it


def test_an_empty_split_says_what_to_change():
    class Tiny(Task):
        vocabulary = "ab="

        def examples(self):
            return [Example("a=", "a", "b")]

    empty = next(split for split in SPLITS if split != split_of("a=", 0.5))
    with pytest.raises(SparselitError, match=rf"Tiny has no prompt for its {empty} split.* too small; make it larger"):
        Tiny().split(empty)


def test_an_unknown_split_is_named():
    with pytest.raises(SparselitError, match="'reprot'"):
        Table().split("reprot")


def test_out_of_distribution_prompts_were_never_trained_on_and_get_a_loader_of_their_own():
    class Longer(First):
        max_length = 13

        def sample_out_of_distribution(self, rng):
            letters = "a" + "".join(rng.choices("abc", k=11))
            return Example(letters + "=", "a", "b")

    task = Longer(report=200)
    train = set(prompts(task, "train"))
    assert not train & set(prompts(task, "out_of_distribution"))
    assert len(task.test_dataloader()) == 2
    assert task.split("out_of_distribution").tokens.shape[1] <= 13
    assert Table().split("out_of_distribution") is None
    assert len(Table().test_dataloader()) == 1


# ---- tensors


def test_examples_are_encoded_as_the_vocabulary_says():
    task = First(report=300)
    examples = task.split("report")
    for i, text in enumerate(prompts(task, "report")):
        assert examples.tokens[i, : len(text)].tolist() == task.encode(text)
        assert examples.tokens[i, len(text) :].eq(0).all()
        assert task.decode([examples.answer[i]]) == text[0]
    assert task.vocab_size == 5
    assert Table().max_length == 4


def test_encode_names_a_character_it_does_not_know():
    with pytest.raises(SparselitError, match="'z' in 'abz=' is not in the vocabulary of First"):
        First().encode("abz=")


def test_evaluation_loaders_give_the_whole_split_in_order():
    task = First(selection=700, batch_size=8)
    chunks = task.val_dataloader()
    chunks.size = 300
    parts = list(chunks)
    assert [len(part.length) for part in parts] == [300] * (len(chunks) - 1) + [len(parts[-1].length)]
    assert equal((torch.cat(f) for f in zip(*parts, strict=True)), task.split("selection"))


def test_behaviour_holds_the_held_out_splits_and_the_arguments():
    behaviour = First(report=300, seed=2).behaviour()
    assert sorted(behaviour.splits) == ["discovery", "report", "selection"]
    assert equal(behaviour.splits["report"], First(report=300, seed=2).split("report"))
    assert (behaviour.vocabulary, behaviour.strata) == ([*" abc="], ("all",))
    assert behaviour.task["class_path"] == f"{__name__}.First"
    assert (behaviour.task["init_args"]["seed"], behaviour.task["init_args"]["report"]) == (2, 300)


# ---- stream


@pytest.mark.parametrize("pool", [256, None])
def test_stream_is_the_same_for_any_number_of_workers(pool):
    streams = [First(pool=pool, batch_size=16, num_workers=n).train_dataloader() for n in (0, 2)]
    for a, b in zip(*(islice(stream, 7) for stream in streams), strict=True):
        assert isinstance(b, Examples)
        assert equal(a, b)


@pytest.mark.parametrize("pool", [256, None])
def test_stream_is_a_function_of_the_seed_and_holds_training_prompts_only(pool):
    def text(seed):
        task = First(pool=pool, batch_size=16, seed=seed)
        batches = islice(task.train_dataloader(), 4)
        return [task.decode(row[:n]) for batch in batches for row, n in zip(batch.tokens, batch.length, strict=True)]

    assert text(0) == text(0) != text(1)
    assert len(text(0)) == 64
    assert {split_of(prompt, 0.5) for prompt in text(0)} == {"train"}


def test_ranks_share_the_stream_without_overlap():
    whole = First(pool=64, batch_size=4).train_dataloader()
    batches = list(islice(whole, 6))
    for rank in (0, 1):
        whole.rank, whole.world_size = rank, 2
        assert all(equal(a, b) for a, b in zip(islice(whole, 3), batches[rank::2], strict=True))


class Recorder(LightningModule):
    """Keeps the batches it sees."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())


def trainer(folder, **kwargs):
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, max_epochs=-1, limit_val_batches=0, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_goes_on_with_the_batch_that_comes_next(tmp_path, num_workers):
    def task():
        return First(pool=64, batch_size=4, num_workers=num_workers)

    first, second = Recorder(), Recorder()
    run = trainer(tmp_path, max_steps=5)
    run.fit(first, datamodule=task())
    run.save_checkpoint(tmp_path / "a.ckpt")
    trainer(tmp_path, max_steps=9).fit(second, datamodule=task(), ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    expected = list(islice(task().train_dataloader(), 9))
    assert [len(first.seen), len(second.seen)] == [5, 4]
    assert all(equal(a, b) for a, b in zip(first.seen + second.seen, expected, strict=True))


def test_a_new_epoch_does_not_repeat_the_batches_of_the_last_one(tmp_path):
    model = Recorder()
    trainer(tmp_path, max_steps=6, limit_train_batches=3).fit(model, datamodule=First(pool=64, batch_size=4))
    expected = islice(First(pool=64, batch_size=4).train_dataloader(), 6)
    assert all(equal(a, b) for a, b in zip(model.seen, expected, strict=True))


def test_a_batch_of_the_pool_costs_well_under_a_millisecond():
    stream = iter(First(batch_size=256).train_dataloader())
    next(stream)
    times = []
    for _ in range(100):
        began = time.perf_counter()
        next(stream)
        times.append(time.perf_counter() - began)
    assert sorted(times)[50] < 1e-3


# ---- arguments and checkpoints


def test_arguments_are_saved_as_hyper_parameters():
    class Named(First):
        def __init__(self, size: int = 3, **kwargs):
            super().__init__(**kwargs)

    hparams = Named(size=5, seed=2).hparams
    assert (hparams["size"], hparams["seed"], hparams["batch_size"]) == (5, 2, 128)


@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", 0), ("seed", -1), ("pool", 0), ("report", 0), ("num_workers", -1)]
)
def test_a_number_out_of_range_is_named(key, value):
    with pytest.raises(SparselitError, match=rf"data\.{key} must be at least \d.*got {value}"):
        First(**{key: value})


def test_a_checkpoint_with_another_vocabulary_or_task_is_refused():
    state = First().state_dict()
    First().load_state_dict(state)
    with pytest.raises(SparselitError, match=r"vocabulary differs .*' abcd=' there, ' abc=' here"):
        First().load_state_dict({**state, "vocabulary": [*" abcd="]})
    with pytest.raises(SparselitError, match=r"task differs .*'other\.First' there"):
        First().load_state_dict({**state, "task": "other.First"})


# ---- broken plug-ins

GOOD = Example("aab=", "a", "b", "bba=")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (GOOD._replace(answer="ab"), "the answer 'ab' is not one token of the vocabulary"),
        (GOOD._replace(answer=None), "the answer None is not one token"),
        (GOOD._replace(wrong="z"), "the wrong answer 'z'"),
        (GOOD._replace(wrong="a"), "the answer and the wrong answer are both 'a'"),
        (GOOD._replace(prompt="aaz="), "'z' of the prompt is not in the vocabulary"),
        (GOOD._replace(prompt=""), "the prompt must be a text"),
        (GOOD._replace(prompt="a" * 30), "30 tokens and max_length is 9"),
        (GOOD._replace(corrupted="bb="), "the corrupted prompt has 3 tokens and the prompt 4"),
        (GOOD._replace(corrupted="aab="), "the corrupted prompt equals the prompt"),
        (GOOD._replace(stratum="odd"), "the stratum 'odd' is not one of all"),
        (("aab=", "a", "b"), "must give an Example"),
        (None, "must give an Example"),
    ],
)
def test_a_broken_example_is_one_line_that_names_class_and_method(example, message):
    trained = next(text for text in map(str, range(99)) if split_of(text, 0.5) == "train")

    class Broken(First):
        def sample(self, rng):
            return example

        def family(self, prompt):
            return trained

    with pytest.raises(SparselitError, match=message) as error:
        Broken().split("train")
    assert "Broken.sample()" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["sample", "examples", "sample_out_of_distribution"])
def test_a_method_that_raises_is_named(method):
    def fail(self, *args):
        raise ValueError("no\nluck")

    broken = type("Broken", (First,), {method: fail})()
    with pytest.raises(SparselitError, match=rf"^Broken\.{method}\(\) raised ValueError: no luck$"):
        broken.split("out_of_distribution" if "out" in method else "train")


def test_an_examples_generator_that_raises_halfway_is_named():
    class Broken(Task):
        vocabulary = "ab="

        def examples(self):
            yield Example("a=", "a", "b")
            raise KeyError("b")

    with pytest.raises(SparselitError, match=r"Broken\.examples\(\) raised KeyError: 'b'"):
        _ = Broken().max_length


def test_two_answers_for_one_prompt_are_refused():
    class Torn(Table):
        def examples(self):
            yield from super().examples()
            yield Example("017=", "3", "4")

    with pytest.raises(
        SparselitError, match=r"Torn\.examples\(\) gives two answers for the prompt '017=': '7' and '3'"
    ):
        Torn().split("report")

    class Noisy(First):
        def sample(self, rng):
            return Example("aab=", *rng.sample("ab", 2))

    with pytest.raises(SparselitError, match=r"Noisy\.sample\(\) gives two answers"):
        Noisy().split(split_of("aab=", 0.5))


def test_a_task_without_examples_vocabulary_or_length_says_so():
    with pytest.raises(SparselitError, match=r"Task must define sample\(rng\) or examples\(\)"):
        Task().split("train")
    with pytest.raises(SparselitError, match=r"Same\.vocabulary must hold two or more different words"):
        _ = type("Same", (Table,), {"vocabulary": "aab"})().vocab_size

    class Endless(Task):
        vocabulary = "ab="

        def sample(self, rng: random.Random) -> Example:
            return Example("a=", "a", "b")

    with pytest.raises(SparselitError, match="Endless needs a max_length"):
        _ = Endless().max_length
