"""``sparselit new task NAME``: a task that works at once, its test and its YAML, to be changed into one's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from string import Template

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_text

_NAME = re.compile(r"[A-Z][A-Za-z0-9]*")

_TASK = Template('''"""Which value has the variable?"""

import random

from sparselit import Example, Task


class $name(Task):
    """The value of a variable among those that were assigned: ``a=3;b=7;a?`` → ``3``.

    Args:
        variables: how many are assigned in a prompt, from 2 to 8.
        kwargs: arguments of every task.
    """

    vocabulary = "abcdefgh0123456789=;?"  # every character is a token; the answer is one too

    def __init__(self, variables: int = 2, **kwargs) -> None:
        super().__init__(**kwargs)
        self.variables = variables
        self.max_length = 4 * variables + 2  # tokens of the longest prompt

    def sample(self, rng: random.Random) -> Example:
        """One example: prompt, right answer, the wrong one it competes with, and a corrupted prompt."""
        names = rng.sample("abcdefgh", self.variables)
        values = rng.sample("0123456789", self.variables)
        assigned = "".join(f"{name}={value};" for name, value in zip(names, values))
        asked, other = rng.sample(range(self.variables), 2)
        return Example(
            prompt=f"{assigned}{names[asked]}?",
            answer=values[asked],
            wrong=values[other],
            corrupted=f"{assigned}{names[other]}?",  # as long, and ``wrong`` is its right answer
        )

    def solve(self, prompt: str) -> str:
        """The answer by another rule, with which the check compares every example."""
        return prompt[prompt.index(prompt[-2] + "=") + 2]
''')

_TEST = Template('''"""$name measures what it says: no leak, no shortcut, and every answer is the rule's."""

import random

from sparselit.data.soundness import examine

from tasks.$module import $name


def test_it_is_sound():
    assert examine($name(pool=2048, discovery=256, selection=256, report=512)).faults == ()


def test_every_answer_is_that_of_the_rule():
    task, rng = $name(), random.Random(0)
    for example in (task.sample(rng) for _ in range(100)):
        assert task.solve(example.prompt) == example.answer
        assert task.solve(example.corrupted) == example.wrong
''')

_YAML = Template("""\
# sparselit fit --config $module.yaml          any key may follow: --model.d_model 64
seed_everything: 0
data: tasks.$module.$name
effort: normal
threads: 1
""")


def run(argv: list[str]) -> None:
    """Write the files of a new task below the current folder and say what to do with them.

    Raises:
        SparselitError: the name is none of a class, or a file exists.
    """
    parser = PlainParser(
        "new",
        "Begin a task of your own: tasks/NAME.py, a test and a YAML of five lines, which work at once. The task that "
        "is written asks for the value of a variable; change its vocabulary, sample and solve into yours.",
    )
    parser.add_argument("what", choices=["task"], help="what to begin")
    parser.add_argument("name", metavar="NAME", help="name of the class, such as Lookup; its file is tasks/lookup.py")
    name = parser.parse_args(argv).name
    if not _NAME.fullmatch(name):
        raise SparselitError(f"a task is named like a class, such as Lookup or LastWord, got {name!r}")
    module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    written = {
        Path("tasks", f"{module}.py"): _TASK,
        Path("tests", f"test_{module}.py"): _TEST,
        Path(f"{module}.yaml"): _YAML,
    }
    for path in written:
        if path.exists():
            raise SparselitError(f"{path} exists; give the task another name, or move the file away")
    for path, template in written.items():
        path.parent.mkdir(exist_ok=True)
        write_text(path, template.substitute(name=name, module=module))
    sys.stdout.write("".join(f"wrote {path}\n" for path in written))
    sys.stdout.write(
        f"\nChange it:           tasks/{module}.py (vocabulary, sample, solve)\n"
        f"Is it sound?         sparselit tasks --check tasks.{module}.{name}\n"
        f"Test it:             python -m pytest tests/test_{module}.py\n"
        f"Train, find circuit: sparselit fit --config {module}.yaml\n"
    )
