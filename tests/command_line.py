"""The program as the tests run it, and what they feed it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FAST = ["--steps", "4", "--device", "cpu", "--jobs", "1"]
TINY = [
    *("--modality", "image", "--patch", "16x16", "--width", "8", "--depth", "3", "-K", "2", "--batch", "2"),
    *("--device", "cpu"),
]
Run = Callable[..., tuple[int, str, str]]


def photo(path: Path, seed: int = 1) -> Path:
    """Write a smooth picture, 40 x 32 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:32, :40] / 8
    waves = [np.sin(seed + x), np.sin(y - seed), np.sin((x + y) / 2)]
    Image.fromarray(np.rint(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)).save(path)
    return path


def program(*argv: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a process of its own."""
    command = [sys.executable, "-m", "inrcodec", *map(str, argv)]
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **options)


def is_one_error(text: str, *parts: str) -> bool:
    return text.startswith("inrcodec: error: ") and text.count("\n") == 1 and all(part in text for part in parts)
