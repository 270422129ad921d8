"""`inrcodec info`."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import FAST, Run, photo
from headers import SOUND

from inrcodec.coding.container import Container, Stream, write_container
from inrcodec.coding.varint import write_varint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_standard_output(run: Run, folder: Path) -> None:
    photo(folder / "a.png")
    assert run("encode", "a.png", "--init", "tiny-image", *FAST)[0] == 0
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "inrcodec", "info", "a.inr"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode != 0
    assert b"standard output: No space left" in done.stderr


def test_info_needs_no_torch(folder: Path, tiny_image_file: bytes) -> None:
    (folder / "photo.inr").write_bytes(tiny_image_file)
    script = "import sys; from inrcodec.cli import main\nmain(['info', 'photo.inr']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_only_headers_are_read(folder: Path, tiny_image_file: bytes, run: Run) -> None:
    """A file larger than the memory there is: with a hole where a chunk would be."""
    head = tiny_image_file[:5]
    (folder / "photo.inr").write_bytes(tiny_image_file)
    sizes = [part["bytes"] for part in json.loads(run("info", "photo.inr", "--json")[1])["parts"]]
    header = tiny_image_file[5 : 5 + sizes[1]]
    with (folder / "large.inr").open("wb") as file:
        length = 1 << 39
        file.write(head + header + b"C" + write_varint(length) + bytes(4))
        file.seek(length, 1)
        file.write(tiny_image_file[-6:])
    code, out, _ = run("info", "large.inr", "--json")
    assert code == 0 and json.loads(out)["bytes"] > length


def test_names_cannot_steer_the_terminal(folder: Path, run: Run) -> None:
    stream = Stream(replace(SOUND, name="\x1b[2J\u202eevil\n"), ())
    (folder / "a.inr").write_bytes(write_container(Container((stream,))))
    code, out, _ = run("info", "a.inr")
    assert code == 0 and "\x1b" not in out and "\u202e" not in out and "\\x1b[2J\\u202eevil\\n" in out
