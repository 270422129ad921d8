"""Decodes the files of a folder, with oneDNN and without it.

A program, so that it can run with other instructions and threads than the tests do. It prints the instructions that
torch takes, and for both ways the hash of every file's values, as JSON.
"""

import hashlib
import json
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

import inrcodec

SUFFIX = ".inr"


def hash_of(values: Iterable[np.ndarray]) -> str:
    """Return the hash of the bytes of arrays."""
    total = hashlib.sha256()
    for each in values:
        total.update(np.ascontiguousarray(each).tobytes())
    return total.hexdigest()


def hashes(folder: Path, onednn: bool) -> dict[str, str]:
    """Return the hashes of what all files decode to, by their names."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch itself sets what it warns of
        with torch.backends.mkldnn.flags(enabled=onednn):
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                decoded = inrcodec.decode(path.read_bytes(), device="cpu")
                found[path.stem] = hash_of(signal.values for signal in decoded)
    return found


if __name__ == "__main__":
    instructions = torch.backends.cpu.get_cpu_capability()
    print(json.dumps([instructions, *(hashes(Path(sys.argv[1]), onednn) for onednn in (True, False))]))
