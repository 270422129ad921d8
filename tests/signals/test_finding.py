"""Which files a folder has: each once, regular ones only; what is no file is refused in a line."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inrcodec import signals
from inrcodec.errors import InrcodecWarning, SignalError
from inrcodec.signals import find_files
from inrcodec.signals import image as image_signals


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path


def test_files_of_a_modality_are_found_below_a_folder(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "b" / "one.PNG"), picture(tmp_path / "a" / "c" / "two.jpg")
    for name in ("a/sound.wav", "a/.hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert find_files(tmp_path, "image") == [two, one]
    assert find_files(tmp_path) == [two, tmp_path / "a" / "sound.wav", one]


def test_a_folder_with_a_link_to_itself_gives_a_file_once(tmp_path: Path) -> None:
    one = picture(tmp_path / "a" / "one.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / "above").symlink_to("..")
    (tmp_path / "0").symlink_to("a")
    assert find_files(tmp_path) == [one]


def test_a_file_behind_several_links_is_found_once(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside" / "x.png")
    folder = tmp_path / "folder"
    own = picture(folder / "b" / "own.png")
    (folder / "0.png").symlink_to(own)
    (folder / "c.png").symlink_to(outside)
    (folder / "d.png").symlink_to(outside)
    (folder / "e").symlink_to(outside.parent)
    found = find_files(folder)
    assert own in found
    assert len(found) == 2
    assert sorted(path.resolve() for path in found) == [own, outside]


def test_links_outside_are_followed(tmp_path: Path) -> None:
    picture(tmp_path / "outside" / "x.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    assert find_files(tmp_path / "folder") == [tmp_path / "folder" / "link" / "x.png"]


def test_a_folder_of_frames_is_a_clip_once(tmp_path: Path) -> None:
    picture(tmp_path / "clip" / "0.png")
    picture(tmp_path / "clip" / "1.png")
    (tmp_path / "link").symlink_to("clip")
    (tmp_path / "clip" / "again").symlink_to("..")
    assert find_files(tmp_path, "video") == [tmp_path / "clip"]


def test_what_is_no_regular_file_is_left_out(tmp_path: Path) -> None:
    one = picture(tmp_path / "one.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to("missing")
    (tmp_path / "folder.png").mkdir()
    assert find_files(tmp_path) == [one]


@pytest.mark.parametrize("name", ["x.png", "x.wav", "x.mp4", "x.nc"])
def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    caught: list[SignalError] = []

    def read() -> None:
        try:
            signals.read(tmp_path / name)
        except SignalError as error:
            caught.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "neither a file nor a folder" in str(caught[0])
    assert "\n" not in str(caught[0])


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(SignalError, match="no regular file"):
        image_signals.read(tmp_path / "x.png")


def test_a_folder_that_cannot_be_read_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = picture(tmp_path / "one.png")
    (tmp_path / "closed").mkdir()
    usual = Path.iterdir

    def listing(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return usual(path)

    monkeypatch.setattr(Path, "iterdir", listing)
    with pytest.warns(InrcodecWarning, match=r"closed: cannot be read \(Permission denied\)"):
        assert find_files(tmp_path) == [one]


def test_a_store_is_a_file(tmp_path: Path) -> None:
    for store in ("a.zarr", "b/c.ZARR"):
        (tmp_path / store / "t").mkdir(parents=True)
        picture(tmp_path / store / "t" / "0.png")
    assert find_files(tmp_path) == [tmp_path / "a.zarr", tmp_path / "b" / "c.ZARR"]
    assert find_files(tmp_path / "a.zarr") == [tmp_path / "a.zarr"]
    assert find_files(tmp_path / "a.zarr", "image") == []
