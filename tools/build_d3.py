"""Build the one library of the circuit page, d3-selection with d3-zoom, from its published packages.

Run ``python tools/build_d3.py`` with Node.js and npm. Every package is pinned by version and by the SHA-256 of its
archive. What it writes lies in ``sparselit/report/page/static/``: the bundle ``d3.js``, the licences, and
``d3.json`` with versions and hashes, against which a test compares the bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TARGET = Path(__file__).parents[1] / "sparselit" / "report" / "page" / "static"
#: Package, version and SHA-256 of its archive.
PACKAGES = {
    "d3-color": ("3.1.1", "a1a3e15ea444d7af2f54c890f24afd07f71d3804852e0cd95de3865529eff607"),
    "d3-dispatch": ("3.0.2", "a7761dc785dd08d6b3c57c92bb245b581cfe36e6a581687142a2b6f3df104b23"),
    "d3-drag": ("3.0.1", "eba2676ca8fa25c2e75da5db59dafe83b7e830f8bd6729a0994b6560763f6e63"),
    "d3-ease": ("3.0.2", "8c9a9f83a8184a22e166eab8f50f66bcf21399fff54410c202548a15fbe44ea9"),
    "d3-interpolate": ("3.0.2", "cd6a0769a2cef69ae18191750f5ea927c5aefc817e74d4d57866c98642ed0de9"),
    "d3-selection": ("3.0.1", "d0662f266b67486711eed5a3dabac99b866d9bb944aebd077afddbe2be9e40bd"),
    "d3-timer": ("3.0.2", "94b4d053d0061bfb7a3461234a5a14d5b3200e6dbb28d148559ed91ba787661c"),
    "d3-transition": ("3.0.2", "64b03c10295a81208cc1c6185b1cafb4817446d94e3c945fc28b68f959d42726"),
    "d3-zoom": ("3.0.1", "07d5a89d19dca1c4b996fc60865d8b0da1d8dca8e0f7fa09f49e38e02fd11982"),
}
#: What bundles them; not part of the page.
BUNDLER = "esbuild@0.28.2"
ENTRY = 'export { select, pointer } from "d3-selection";\nexport { zoom, zoomIdentity } from "d3-zoom";\n'


def main() -> None:
    """Fetch, check, bundle and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        licences = []
        for package, (version, expected) in PACKAGES.items():
            archive = folder / run(folder, "npm", "pack", "--silent", f"{package}@{version}").strip()
            found = hashlib.sha256(archive.read_bytes()).hexdigest()
            if found != expected:
                sys.exit(f"{package}@{version}: the archive's SHA-256 is {found}, not {expected}")
            licences.append(f"{package} {version}\n\n{unpacked(archive, folder / 'node_modules' / package)}")
        (folder / "entry.js").write_text(ENTRY)
        (folder / "package.json").write_text("{}")
        run(folder, "npm", "install", "--silent", "--no-save", "--prefix", str(folder / "bundler"), BUNDLER)
        esbuild = folder / "bundler" / "node_modules" / ".bin" / "esbuild"
        options = ["--bundle", "--minify", "--format=iife", "--global-name=d3", "--target=es2020", "--charset=ascii"]
        run(folder, str(esbuild), "entry.js", *options, "--outfile=d3.js")
        bundle = (folder / "d3.js").read_bytes()
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "d3.js").write_bytes(bundle)
    (TARGET / "THIRD_PARTY_LICENSES.txt").write_text(("\n" + "-" * 80 + "\n\n").join(licences))
    record = {
        "packages": {package: {"version": v, "sha256": h} for package, (v, h) in PACKAGES.items()},
        "bundler": BUNDLER,
        "bundle_sha256": hashlib.sha256(bundle).hexdigest(),
    }
    (TARGET / "d3.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{TARGET / 'd3.js'}: {len(bundle):,} bytes")


def run(folder: Path, *command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=os.environ).stdout


def unpacked(archive: Path, target: Path) -> str:
    """Unpack a package and return its licence."""
    target.mkdir(parents=True)
    with tarfile.open(archive) as file:
        for member in file:
            name = Path(member.name)
            if member.isfile() and ".." not in name.parts:
                place = target.joinpath(*name.parts[1:])
                place.parent.mkdir(parents=True, exist_ok=True)
                content = file.extractfile(member)
                place.write_bytes(content.read() if content else b"")
    return (target / "LICENSE").read_text().strip() + "\n"


if __name__ == "__main__":
    main()
