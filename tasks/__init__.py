"""The tasks and the texts that come with the library."""

from .bracket_depth import BracketDepth
from .bracket_type import BracketType
from .comparison import Comparison
from .copying import Copying
from .escaped_quotes import EscapedQuotes
from .file_task import FileTask
from .first_token import FirstToken
from .indirect_object import IndirectObject
from .induction import Induction
from .key_value_recall import KeyValueRecall
from .last_token import LastToken
from .majority_token import MajorityToken
from .minimum import Minimum
from .mixture import Mixture
from .modular_addition import ModularAddition
from .modular_multiplication import ModularMultiplication
from .nested_quotes import NestedQuotes
from .parity import Parity
from .python_brackets import BracketBrace, BracketCounting, FstringBrace, SingleDoubleQuote
from .python_code import PythonCode
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
from .python_variables import FinalKwarg, SetOrString, SetOrStringFixedvarname, VarIf, VarSwap
from .quotes import Quotes
from .reversing import Reversing
from .text_files import TextFiles
from .variable_type import VariableType

__all__ = [
    "BracketBrace",
    "BracketCounting",
    "BracketDepth",
    "BracketType",
    "ClassInit",
    "Comparison",
    "Copying",
    "ElseElif",
    "EnumerateRange",
    "EscapedQuotes",
    "FileTask",
    "FinalKwarg",
    "FirstToken",
    "ForWhile",
    "FstringBrace",
    "IfEquals",
    "IfTernary",
    "IndentFor",
    "IndirectObject",
    "Induction",
    "KeyValueRecall",
    "LambdaFunc",
    "LastToken",
    "MajorityToken",
    "Minimum",
    "Mixture",
    "ModularAddition",
    "ModularMultiplication",
    "NestedQuotes",
    "Parity",
    "PythonCode",
    "Quotes",
    "Reversing",
    "SetOrString",
    "SetOrStringFixedvarname",
    "SingleDoubleQuote",
    "TextFiles",
    "VarIf",
    "VarSwap",
    "VariableType",
    "WhileReturnTrue",
    "WithAs",
    "WithOpen",
]
