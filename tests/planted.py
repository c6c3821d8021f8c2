"""A sound task, and five with one planted fault each; also what a user's own file looks like."""

from __future__ import annotations

from typing import ClassVar

from sparselit import Example, Task

SWAP = str.maketrans("ab", "ba")


class Majority(Task):
    """Which of two letters is more frequent: sound, but for what it is about."""

    vocabulary = "ab=x"
    max_length = 18
    mirrored = True
    by_definition: ClassVar = {"bag of characters": "only the counts matter"}

    def __init__(self, **kwargs):
        super().__init__(**{"pool": 600, "discovery": 100, "selection": 100, "report": 300, **kwargs})

    def sample(self, rng):
        letters = "".join(rng.choices("ab", k=17))
        answer, wrong = "ab" if letters.count("a") > 8 else "ba"
        return Example(letters + "=", answer, wrong, letters.translate(SWAP) + "=")

    def solve(self, prompt):
        return "a" if prompt.count("a") > prompt.count("b") else "b"


class Leak(Majority):
    """What is reported was trained on."""

    def split(self, name):
        return super().split("train" if name == "report" else name)


class Imbalance(Majority):
    """Nine prompts in ten have the same answer."""

    mirrored = False

    def sample(self, rng):
        while True:
            example = super().sample(rng)
            if example.answer == "a" or rng.random() < 0.1:
                return example


class Shortcut(Majority):
    """The majority stands at the third place, always."""

    def sample(self, rng):
        while True:
            example = super().sample(rng)
            if example.prompt[2] == example.answer:
                return example


class Visible(Majority):
    """The prompt goes on to say the answer, and only that one of the two; it stands at no fixed place."""

    vocabulary = "ab=xAB"

    def sample(self, rng):
        answer, wrong = rng.sample("AB", 2)
        n = rng.randint(1, 5)
        prompt = "".join(rng.choices("ab", k=n)) + answer + "".join(rng.choices("ab", k=9 - n)) + "="
        return Example(prompt, answer, wrong, prompt.replace(answer, wrong))

    def solve(self, prompt):
        return next(letter for letter in prompt if letter in "AB")


class Unflipped(Majority):
    """The corrupted prompt has another letter in a place that does not decide."""

    mirrored = False

    def sample(self, rng):
        example = super().sample(rng)
        place = example.prompt.index(example.wrong) if example.wrong in example.prompt else 0
        other = example.prompt[:place] + "x" + example.prompt[place + 1 :]
        return example._replace(corrupted=other)
