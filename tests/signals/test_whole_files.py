"""Every file is written whole or not at all: full disks, limits, short writes, permissions."""

import errno
import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from inrcodec import signals
from inrcodec.errors import InrcodecWarning, SignalError, UsageError
from inrcodec.signals import Axis, Signal, whole_files, write_whole

PICTURES = (".png", ".jpg", ".webp", ".tif", ".bmp", ".ppm", ".jp2", ".avif", ".tga", ".qoi")
SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".au", ".caf", ".w64", ".rf64")
CLIPS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
ALL = (*PICTURES, *SOUNDS, *CLIPS)
random = np.random.default_rng(0)


def content(suffix: str, scale: int = 1) -> list[Signal]:
    """Noise, which no format makes small, for a file with this suffix."""
    if suffix in PICTURES:
        pixels = random.integers(0, 256, (64 * scale, 64, 3), dtype=np.uint8)
        return [Signal("image", pixels, (Axis(64 * scale), Axis(64)), (0.0, 255.0))]
    if suffix in CLIPS:
        frames = random.integers(0, 256, (4 * scale, 48, 48, 3), dtype=np.uint8)
        axes = (Axis(4 * scale, "start", rate=Fraction(25)), Axis(48), Axis(48))
        return [Signal("video", frames, axes, (0.0, 255.0))]
    return [noise(24000 * scale)]


def noise(length: int) -> Signal:
    """A second at 24 kHz is 24000 samples."""
    samples = random.uniform(-0.9, 0.9, (length, 1, 1)).astype(np.float32)
    return Signal("audio", samples, (Axis(length, "start", rate=Fraction(24000)), Axis(1, "slice")), (-1.0, 1.0))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system cuts files short at `size` bytes: a real short write, then errors, without a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no command to mount a disk")
    made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("suffix", ALL)
def test_a_cut_file_is_an_error_and_leaves_the_old_one(tmp_path: Path, suffix: str, share: float) -> None:
    made = content(suffix)
    signals.write(made, tmp_path / f"whole{suffix}")
    size = (tmp_path / f"whole{suffix}").stat().st_size
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"old")
    limit = min(int(share * size), size - 1)
    with largest_file(limit), pytest.raises(SignalError, match=rf"cannot write .*/x{suffix}: File too large"):
        signals.write(made, path)
    assert path.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / f"whole{suffix}", path])
    with largest_file(2 * size):
        signals.write(made, path)
    assert path.stat().st_size == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize("suffix", ALL)
def test_a_full_disk_says_so(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"x{suffix}"
    signals.write(content(suffix), path)
    old = path.read_bytes()
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    for room in (0, 4096, (len(old) - 1) // 4096 * 4096):
        os.truncate(filler, max(0, filler.stat().st_size - room))
        with pytest.raises(SignalError) as caught:
            signals.write(content(suffix, 40), path)
        assert str(caught.value) == (
            f"cannot write {path}: No space left on device; free some space in {small_disk}, or write to another disk"
        )
        assert path.read_bytes() == old
        assert sorted(small_disk.iterdir()) == [filler, path]


def test_a_full_disk_that_a_library_calls_something_else(small_disk: Path) -> None:
    def write(path: Path) -> None:
        try:
            path.write_bytes(bytes(1 << 20))
        except OSError as error:
            raise SignalError("Permission denied") from error

    with pytest.raises(SignalError, match=r"cannot write .*: No space left on device"):
        write_whole(small_disk / "x", write)
    assert list(small_disk.iterdir()) == []
    with pytest.raises(SignalError, match=r"^Permission denied$"):
        write_whole(small_disk / "x", lambda _: (_ for _ in ()).throw(SignalError("Permission denied")))


@pytest.mark.parametrize("suffix", ALL)
def test_short_writes_are_continued(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = content(suffix)
    usual = os.write
    monkeypatch.setattr(whole_files.os, "write", lambda handle, data: usual(handle, data[:1000]))
    signals.write(made, tmp_path / f"x{suffix}")
    monkeypatch.undo()
    read = signals.read(tmp_path / f"x{suffix}")
    assert read[0].shape == made[0].shape


@pytest.mark.parametrize("suffix", ALL)
def test_the_last_write_counts(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last write of a file fails, and every one after it, as when a disk fills up while it is closed."""
    made, usual, calls = content(suffix), os.write, 0

    def counted(handle: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls >= failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return usual(handle, data)

    failing = 1 << 30
    monkeypatch.setattr(whole_files.os, "write", counted)
    signals.write(made, tmp_path / f"x{suffix}")
    calls, failing = 0, calls
    with pytest.raises(SignalError, match="No space left on device"):
        signals.write(made, tmp_path / f"y{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]


def test_everything_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    usual_sync, usual_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        usual_sync(handle)

    def replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return usual_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_whole(tmp_path / "x", lambda path: path.write_bytes(b"new"))
    assert events == ["file", "rename", "folder"]


def test_an_error_of_bringing_to_the_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"old")

    def failing(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(SignalError, match="Input/output error"):
        write_whole(tmp_path / "x", lambda path: path.write_bytes(b"new"))
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_brought_to_the_disk_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"old")
    usual = os.fsync

    def failing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        usual(handle)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.warns(InrcodecWarning, match=r"x is written, but its folder .*\(Input/output error\)"):
        write_whole(tmp_path / "x", lambda path: path.write_bytes(b"new"))
    assert (tmp_path / "x").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444])
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x.png"
    signals.write(content(".png"), path)
    path.chmod(mode)
    signals.write(content(".png"), path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_permissions_of_any(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "x", lambda path: path.write_bytes(b""))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give files away")
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    os.chown(tmp_path / "x", 1234, 4321)
    write_whole(tmp_path / "x", lambda path: path.write_bytes(b"new"))
    now = (tmp_path / "x").stat()
    assert (now.st_uid, now.st_gid) == (1234, 4321)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", lambda path: path.write_bytes(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="no file"):
        write_whole(tmp_path, lambda path: path.write_bytes(b""))
    with pytest.raises(SignalError, match=r"cannot write .*missing/x: No such file"):
        write_whole(tmp_path / "missing" / "x", lambda path: path.write_bytes(b""))


@pytest.mark.parametrize("error", [SignalError, UsageError, KeyboardInterrupt, SystemExit, ValueError])
def test_what_stops_the_writing_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise error(f"{path}: cannot go on")

    with pytest.raises(error) as caught:
        write_whole(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []
    if error in (SignalError, UsageError):
        assert str(caught.value) == f"{tmp_path / 'x'}: cannot go on"


@pytest.mark.parametrize("suffix", SOUNDS)
@pytest.mark.parametrize("length", [1, 2, 575, 1152, 1153, 5000])
def test_sounds_of_any_length_are_whole(tmp_path: Path, suffix: str, length: int) -> None:
    signals.write([noise(length)], tmp_path / f"x{suffix}")
    assert soundfile.info(tmp_path / f"x{suffix}").frames >= length


def test_a_sound_that_cannot_be_read_to_its_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inrcodec.signals import audio

    monkeypatch.setattr(audio, "_frames", lambda path: 23999)
    with pytest.raises(SignalError, match="only 23999 of 24000 samples"):
        signals.write(content(".flac"), tmp_path / "x.flac")
    assert list(tmp_path.iterdir()) == []


# Values that are no numbers


@pytest.mark.parametrize("suffix", [*SOUNDS, *CLIPS, ".nc"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, suffix: str, value: float) -> None:
    sound = noise(5000)
    sound.values[3] = sound.values[100] = value
    made = [sound]
    if suffix in CLIPS:
        made = [*content(suffix), replace(sound, name="sound")]
    if suffix == ".nc":
        axes = (Axis(1, "slice"), Axis(50), Axis(100))
        made = [Signal("climate", sound.values.reshape(1, 50, 100, 1), axes, (0.0, 1.0), name="tas")]
    with pytest.raises(SignalError, match=rf"cannot write .*x{suffix}: 2 of 5000 values of the .* are NaN or infinite"):
        signals.write(made, tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_missing_values_may_be_anything() -> None:
    values = np.array([[1.0], [np.nan]], np.float32)
    Signal("climate", values, (Axis(2),), (0.0, 1.0), missing=np.array([False, True])).check_finite(Path("x"))
    with pytest.raises(SignalError, match="1 of 2 values"):
        Signal("climate", values, (Axis(2),), (0.0, 1.0), missing=np.array([True, False])).check_finite(Path("x"))


@pytest.mark.parametrize("suffix", [*SOUNDS, *CLIPS])
def test_absurdly_loud_sounds_do_no_harm(tmp_path: Path, suffix: str) -> None:
    sound = replace(noise(5000), name="sound" if suffix in CLIPS else "")
    sound.values[3] = 3e38
    with suppress(SignalError):
        signals.write([*(content(suffix) if suffix in CLIPS else []), sound], tmp_path / f"x{suffix}")
        assert signals.read(tmp_path / f"x{suffix}")
