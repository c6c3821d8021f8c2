"""``sparselit convert``: between OpenAI's checkpoints and ours."""

from __future__ import annotations

import sys
from pathlib import Path

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError

DESCRIPTION = """Turn a checkpoint of OpenAI's circuit_sparsity (a folder with beeg_config.json and final_model.pt)
into a checkpoint of sparselit (a file), or back. The source decides which way."""


def run(argv: list[str]) -> None:
    """Convert, and say in one line what was written."""
    parser = PlainParser("convert", DESCRIPTION)
    parser.add_argument("source", metavar="SOURCE", help="folder of OpenAI's format, or a file such as model.ckpt")
    parser.add_argument("target", metavar="TARGET", help="where to: a file for a folder, a folder for a file")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    options = parser.parse_args(argv)
    source, target = Path(options.source), Path(options.target)
    if not source.exists():
        raise SparselitError(f"{options.source} does not exist")
    to_file = source.is_dir()
    if target.exists() and target.is_dir() == to_file:
        raise SparselitError(
            f"{target} is a {'folder' if to_file else 'file'}; name a {'file' if to_file else 'folder'}"
        )
    if not options.overwrite and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise SparselitError(f"{target} exists; replace it with --overwrite")

    from sparselit.interop import checkpoint_to_openai, openai_to_checkpoint

    model = openai_to_checkpoint(source, target) if to_file else checkpoint_to_openai(source, target)
    numbers = [parameter.detach() for parameter in model.parameters()]
    nonzero, total = sum(int(n.count_nonzero()) for n in numbers), sum(n.numel() for n in numbers)
    sys.stdout.write(f"{target}: {len(model.layers)} layers, {total:,} parameters, {nonzero:,} of them not zero\n")
