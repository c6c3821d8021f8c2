"""The table of formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.files import read_circuit
from sparselit.errors import SparselitError, check_choice
from sparselit.runs.atomic import write_bytes

#: Gives the content of a file from a circuit's record, its path and a prompt, which most formats do without.
Writer = Callable[[Circuit, Path, str | None], str | bytes]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        suffix: of its files.
        what: what it is for, in a few words.
        module: below this package.
        function: in the module, a :data:`Writer`.
        of_prompt: whether it is about one prompt.
    """

    suffix: str
    what: str
    module: str
    function: str
    of_prompt: bool = False

    def writer(self) -> Writer:
        """The function; what it needs is imported now."""
        writer: Writer = getattr(import_module(f"{__package__}.{self.module}"), self.function)
        return writer


FORMATS: dict[str, Format] = {
    "csv": Format(".csv", "edges and biases, a row each", "tables", "edge_rows"),
    "graphml": Format(".graphml", "Gephi, yEd, networkx", "network", "graphml"),
    "gexf": Format(".gexf", "Gephi, with positions", "network", "gexf"),
    "dot": Format(".dot", "Graphviz", "network", "dot"),
    "cytoscape": Format(".cyjs", "Cytoscape and cytoscape.js, with positions", "network", "cytoscape"),
    "eap-ig": Format(".json", "EAP-IG and the MIB circuit track; heads and MLPs only", "eap_ig", "head_graph"),
    "neuronpedia": Format(".json", "attribution graph of one prompt", "neuronpedia", "attribution_graph", True),
    "safetensors": Format(".circuit.safetensors", "the circuit's own weights, the rest zero", "tables", "tensors"),
    "model-card": Format(".md", "Hugging Face, with a model index", "cards", "model_card"),
    "python": Format(".py", "a program in numpy alone, to be read as the algorithm", "program", "program"),
    "cyclonedx": Format(".json", "CycloneDX 1.6, a machine-learning bill of materials", "cards", "bill_of_materials"),
}


def export(circuit: str | Path, to: str, output: str | Path | None = None, prompt: str | None = None) -> Path:
    """Write a circuit in another format.

    Args:
        circuit: its file.
        to: a key of :data:`FORMATS`.
        output: the file to write; default: beside the circuit, named after it and the format.
        prompt: for formats of one prompt; default: the first one of the report split.

    Returns:
        The file that was written.

    Raises:
        SparselitError: there is no such format, the circuit cannot be read, or the format cannot hold it.
        OSError: the file cannot be written.
    """
    check_choice("--to", to, FORMATS)
    path, form = Path(circuit), FORMATS[to]
    if prompt is not None and not form.of_prompt:
        raise SparselitError(f"--to {to} holds no prompt; leave --prompt out")
    record = read_circuit(path)
    suffix = f".{to}{form.suffix}" if form.suffix in (".json", ".md") else form.suffix
    output = path.with_suffix(suffix) if output is None else Path(output)
    if output.absolute() in (path.absolute(), (path.parent / record.model.weights).absolute()):
        raise SparselitError(f"{output} is the circuit's own file; name another with --output")
    content = form.writer()(record, path, prompt)
    write_bytes(output, content.encode() if isinstance(content, str) else content)
    return output
