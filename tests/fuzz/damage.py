"""Files as they are not when nothing has gone wrong: damaged on the way, or made by somebody who means no good."""

from __future__ import annotations

import copy
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load, save

from .configurations import cut

DEEP = 100_000
#: What stands in the place of a value.
VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", "\x1b]0;owned\x07\r\u202e", "\ud800", "a\x00b", "../../etc/passwd", "/dev/zero", "é" * 5000),
    *(0, 1, -1, 7, 2**31, 2**63, 2**70, -(2**70), 10**400, 0.5, -0.1, 1e308, float("nan"), float("inf")),
    *([], {}, [1], [None], [[]], {"a": 1}, [0] * 1000, {"class_path": "os.system", "init_args": {"command": "true"}}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of nested dictionaries and lists; of long lists the first rows."""
    found = [path] if path else []
    parts = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if type(value) is list else []
    for key, part in parts[:60]:
        found += places(part, (*path, key))
    return found


def altered(content: Any, chance: random.Random, values: tuple[Any, ...]) -> Any:
    """A copy in which something has another value, is missing, has another name or is there twice."""
    content = copy.deepcopy(content)
    where = chance.choice(places(content) or [()])
    if not where:
        return chance.choice(values)
    owner = content
    for key in where[:-1]:
        owner = owner[key]
    key, kind = where[-1], chance.randrange(6)
    if kind == 0:
        del owner[key]
    elif kind == 1 and isinstance(owner, dict):
        owner[chance.choice(["x", f"{key}\x1b[31m", "", "class_path"])] = owner.pop(key)
    elif kind == 1:
        owner.insert(key, copy.deepcopy(owner[key]))
    else:
        owner[key] = chance.choice(values)
    return content


# -- bytes ------------------------------------------------------------------------------------------------------------


def flipped(content: bytes, chance: random.Random) -> bytes:
    """One to eight bits are others."""
    found = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def mangled(content: bytes, chance: random.Random) -> bytes:
    """Cut off, emptied, doubled, with a hole, with more behind it, or something else."""
    at = chance.randrange(len(content))
    return chance.choice(
        [
            content[:at],
            content[at:],
            b"",
            content + content,
            content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :],
            content + os.urandom(0) + b"\x00\xff" * 20,
            chance.randbytes(300),
            b"\xef\xbb\xbf" + content,
            b"\xff\xfe" + content.decode(errors="replace").encode("utf-16-le", "replace"),
            b"PK\x03\x04" + bytes(100),
            b"\x80\x04cos\nsystem\n(S'true'\ntR.",
            b"[" * DEEP,
            b'{"a":' * DEEP,
            b"[" * DEEP + b"]" * DEEP,
            b"1" * DEEP,
            b"null",
            b"{}",
            b"[]\n",
        ]
    )


# -- contents ----------------------------------------------------------------------------------------------------------


def _json(value: Any, chance: random.Random) -> bytes:
    return json.dumps(value, indent=chance.choice([None, 1]), ensure_ascii=chance.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def record(content: bytes, chance: random.Random) -> bytes:
    """JSON with another value, or nested without end, or a key twice."""
    if chance.randrange(8) == 0:
        text = content.decode()
        at = text.find('": ') + 3
        return (text[:at] + "[" * DEEP + "]" * DEEP + "," + text[at:]).encode()
    if chance.randrange(8) == 0:
        return content.replace(b"{", b'{"x": 1, "x": 2, ', 1)
    return _json(altered(json.loads(content), chance, VALUES), chance)


def lines(content: bytes, chance: random.Random) -> bytes:
    """JSON lines of which one is other, twice, missing, or very long."""
    found = content.split(b"\n")
    row, kind = chance.randrange(len(found) - 1), chance.randrange(8)
    if kind == 0:
        found.insert(row, found[row])
    elif kind == 1:
        del found[row]
    elif kind == 2:
        found[row] = record(found[row], chance)
    elif kind == 3:
        found[row] = b'{"prompt": "' + b"ab" * 100_000 + b'", "answer": "A", "wrong": "B"}'
    else:
        found[row] = _json(altered(json.loads(found[row]), chance, VALUES), chance).replace(b"\n", b"")
    return b"\n".join(found)


def keys(content: bytes, chance: random.Random) -> bytes:
    """A configuration with another value, or that is no YAML any more, or that multiplies itself."""
    kind = chance.randrange(8)
    if kind == 0:
        rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(12)]
        return "\n".join(rows).encode() + b"\n" + content
    if kind == 1:
        return content + b"\nx: &x [*x]\n"
    if kind in (2, 3):
        return cut(content.decode(), chance).encode()
    values = tuple(value for value in VALUES if not (isinstance(value, str) and "\ud800" in value))
    return yaml.safe_dump(altered(yaml.safe_load(content), chance, values), allow_unicode=True).encode()


def _other_tensor(tensor: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """With other entries, of another shape or kind of number."""
    kind = chance.randrange(11)
    if kind == 0:
        return torch.full_like(tensor, float("nan") if tensor.is_floating_point() else -1)
    if kind == 1:
        return torch.full_like(tensor, float("inf") if tensor.is_floating_point() else 2**31 - 1)
    if kind == 2:
        return tensor.reshape(-1)
    if kind == 3:
        return tensor[:0] if tensor.ndim else tensor[None]
    if kind == 4:
        return torch.cat([tensor.reshape(-1), tensor.reshape(-1)])
    if kind == 5:
        return tensor.unsqueeze(0)
    others = [torch.float16, torch.float64, torch.int64, torch.complex64, torch.bool, torch.uint8]
    return tensor.to(others[kind - 6] if kind - 6 < len(others) else torch.bfloat16)


def _header(content: bytes, chance: random.Random) -> bytes:
    """A file of tensors whose header says something else."""
    size = struct.unpack("<Q", content[:8])[0]
    head = json.loads(content[8 : 8 + size])
    raw = chance.choice([_json(altered(head, chance, VALUES), chance), b"[" * DEEP, b"{" * 3])
    length = chance.choice([len(raw), len(raw), len(raw), 2**63, 2**40, 0])
    return struct.pack("<Q", length) + raw + content[8 + size :]


def tensors(content: bytes, chance: random.Random) -> bytes:
    """A file of tensors with another one, fewer, more, or another header."""
    if chance.randrange(3) == 0:
        return _header(content, chance)
    found = load(content)
    name, kind = chance.choice(sorted(found)), chance.randrange(6)
    if kind == 0:
        del found[name]
    elif kind == 1:
        found[f"{name}\x1b[2K"] = found.pop(name)
    elif kind == 2:
        found["more"] = torch.zeros(3)
    else:
        found[name] = _other_tensor(found[name], chance).contiguous()
    return save(found)


def checkpoint(content: bytes, chance: random.Random) -> bytes:
    """A checkpoint with a part that is missing or has another type, or a tensor that is another."""
    import io

    found = torch.load(io.BytesIO(content), weights_only=True)
    if chance.randrange(3) == 0:
        name = chance.choice(sorted(found["state_dict"]))
        found["state_dict"][name] = _other_tensor(found["state_dict"][name], chance)
    elif chance.randrange(2):
        found = altered(found, chance, (*VALUES, torch.zeros(2), torch.tensor(float("nan")), (1, 2), b"x"))
    else:  # whole parts
        key = chance.choice(sorted(found))
        found[key] = chance.choice((*VALUES, torch.zeros(2), {"x": torch.zeros(2)}))
    file = io.BytesIO()
    torch.save(found, file)
    return file.getvalue()


# -- what is no file ---------------------------------------------------------------------------------------------------


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _away(path: Path) -> None:
    """The same content, outside of every folder of the run."""
    there = path.absolute().parents[len(path.parts) - 1].parent / f"away-{path.name}"
    there.write_bytes(b"{}")
    path.symlink_to(there)


#: What stands where the file was.
STAND_INS: tuple[Callable[[Path], Any], ...] = (
    os.mkfifo,
    _link("/dev/zero"),
    _link("/dev/urandom"),
    _link("/dev/null"),
    _link("nowhere"),
    Path.mkdir,
    _sparse,
    _away,
    lambda path: path.symlink_to(path.name),
    lambda path: None,
)
Damage = Callable[[bytes, random.Random], bytes]


def damage(path: Path, kinds: tuple[Damage, ...], chance: random.Random) -> str:
    """Damage a file.

    Args:
        path: the file.
        kinds: damages that know what it holds.
        chance: all that it depends on.

    Returns:
        What was done.
    """
    content = path.read_bytes()
    kind = chance.randrange(8)
    if kind == 0:
        path.unlink()
        stand_in = chance.randrange(len(STAND_INS))
        STAND_INS[stand_in](path)
        return f"stand-in {stand_in}"
    change = flipped if kind == 1 else mangled if kind in (2, 3) else chance.choice(kinds or (mangled,))
    path.write_bytes(change(content or b"x", chance))
    return change.__name__
