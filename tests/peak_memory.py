"""How much memory some work takes at its peak, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

_MEASURED = """
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10

{before}
start = peak()
{work}
print(peak() - start)
"""


def peak_growth(before: str, work: str, folder: Path) -> int:
    """Return by how many bytes the peak of a Python process grows while it works in a folder.

    before: Python code that imports what the work needs, and takes little memory itself.
    """
    # The peak that `getrusage` tells begins with that of the process which started this one.
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    script = _MEASURED.format(before=dedent(before), work=dedent(work))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
