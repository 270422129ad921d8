"""What the commands leave behind: the files that they were asked for, and nothing in the home or temporary folder."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from climate_files import field, grid, make
from command_line import TINY, photo

SCRIPT = """
import sys
from pathlib import Path
from inrcodec.cli import main
from inrcodec.meta import evaluation, weight_trainer

weight_trainer.PRIOR_PATCHES = 8
evaluation.WEIGHT_PATCHES = 2
for line in Path(sys.argv[1]).read_text().splitlines():
    assert main(line.split()) == 0, line
"""
"""Runs the program for each line of a file."""


def test_nothing_is_left_but_what_was_asked_for(tmp_path: Path) -> None:
    work, home, temporary = (tmp_path / name for name in ("work", "home", "temporary"))
    for folder in (work, home, temporary):
        folder.mkdir()
    photo(work / "data" / "0.png", 0)
    photo(work / "data" / "1.png", 1)
    photo(work / "picture.png")
    soundfile.write(work / "sound.wav", 0.5 * np.sin(np.arange(600) / 5), 8000)
    make(work / "climate.nc", {**grid(), "t": (("time", "lat", "lon"), field(3, 5, 8), {})})
    given = {"data", "picture.png", "sound.wav", "climate.nc"}
    lines = [
        " ".join(["meta-train", *TINY, "--data", "data", "--outer-steps", "2", "-o", "init.safetensors", "--quiet"]),
        "inits",
    ]
    asked = {"init.safetensors", "init.md", "init.safetensors.checkpoint"}
    for name, output in (("picture.png", "again.png"), ("sound.wav", "again.flac"), ("climate.nc", "again.nc")):
        coded = Path(name).with_suffix(".inr")
        lines += [f"encode {name} --effort instant --max-error 0.5", f"decode {coded} -o {output}"]
        lines += [f"info {coded}", f"verify {coded}"]
        asked |= {str(coded), output}
    (tmp_path / "lines").write_text("\n".join(lines))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TORCH", "XDG", "TMP"))}
    environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
    command = [sys.executable, "-P", "-c", SCRIPT, str(tmp_path / "lines")]
    subprocess.run(command, cwd=work, env=environment, timeout=300, check=True)
    assert {path.name for path in work.iterdir()} == given | asked
    assert not list(home.rglob("*")) and not list(temporary.rglob("*"))
