"""Twenty tasks on Python, after the names in Gao et al. 2025.

Of most of them the paper and its code give the name and the form only: a prompt, two tokens that may come next, and a
second prompt that differs in what decides. The prompts here are this library's own.
"""

from __future__ import annotations

from .python_brackets import BracketBrace, BracketCounting, FstringBrace, SingleDoubleQuote
from .python_keywords import (
    ClassInit,
    ElseElif,
    EnumerateRange,
    ForWhile,
    IfEquals,
    IfTernary,
    IndentFor,
    LambdaFunc,
    WhileReturnTrue,
    WithAs,
    WithOpen,
)
from .python_task import PythonTask
from .python_variables import FinalKwarg, SetOrString, SetOrStringFixedvarname, VarIf, VarSwap

#: The tasks by the paper's names.
PYTHON20: dict[str, type[PythonTask]] = {
    "single_double_quote": SingleDoubleQuote,
    "bracket_counting": BracketCounting,
    "set_or_string": SetOrString,
    "set_or_string_fixedvarname": SetOrStringFixedvarname,
    "with_as": WithAs,
    "with_open": WithOpen,
    "for_while": ForWhile,
    "else_elif": ElseElif,
    "if_ternary": IfTernary,
    "if_equals": IfEquals,
    "fstring_brace": FstringBrace,
    "bracket_brace": BracketBrace,
    "var_swap": VarSwap,
    "var_if": VarIf,
    "indent_for": IndentFor,
    "while_return_true": WhileReturnTrue,
    "lambda_func": LambdaFunc,
    "enumerate_range": EnumerateRange,
    "final_kwarg": FinalKwarg,
    "class_init": ClassInit,
}

#: Every answer of the twenty, and what decides some: what a byte-pair encoding must have as one token each.
ANSWERS: tuple[str, ...] = tuple(
    dict.fromkeys(text for task in PYTHON20.values() for text in (*task.possible_answers(), *task.pieces))
)
