"""The tasks that come with the library, one file each."""

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
from .quotes import Quotes
from .reversing import Reversing
from .variable_type import VariableType

__all__ = [
    "BracketDepth",
    "BracketType",
    "Comparison",
    "Copying",
    "EscapedQuotes",
    "FileTask",
    "FirstToken",
    "IndirectObject",
    "Induction",
    "KeyValueRecall",
    "LastToken",
    "MajorityToken",
    "Minimum",
    "Mixture",
    "ModularAddition",
    "ModularMultiplication",
    "NestedQuotes",
    "Parity",
    "Quotes",
    "Reversing",
    "VariableType",
]
