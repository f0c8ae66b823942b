"""Saves a model file again with 8-bit weights: `python -m tools.demo_model.shrink FILE --out FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from modules.core.files import write_whole
from tools.demo_model.training.eight_bits import in_eight_bits, is_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--all", action="store_true", help="store every matrix in 8 bits, not only the token tables")
    arguments = parser.parse_args()
    with safe_open(arguments.file, framework="pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    stored = in_eight_bits(weights, (lambda _name: True) if arguments.all else is_table)
    write_whole(arguments.out, save(stored, metadata=metadata))


if __name__ == "__main__":
    main()
