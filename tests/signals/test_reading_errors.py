"""What a library says, in one line."""

from pathlib import Path

import pytest

from inrcodec.signals.reading_errors import reason, unreadable


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(2, "No such file or directory", "x.png"), "No such file or directory"),
        (OSError("image file\n  is truncated"), "image file is truncated"),
        (KeyError("size"), "KeyError: 'size'"),
        (TypeError("no numbers"), "TypeError: no numbers"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_error_in_one_line(error: BaseException, line: str) -> None:
    assert reason(error) == line


def test_an_error_of_libsndfile_does_not_repeat_the_file() -> None:
    import soundfile

    with pytest.raises(soundfile.LibsndfileError) as caught:
        soundfile.SoundFile(__file__)
    assert reason(caught.value) == "Format not recognised."


def test_an_unreadable_file() -> None:
    error = unreadable(Path("x.mp4"), "a video", ValueError("no layout"), "is it complete?")
    assert str(error) == "x.mp4: cannot be read as a video (no layout); is it complete?"
