"""Video files and folders of frames <-> Signal.

A clip is one picture signal, uint8 RGB on (time, height, width), and a "sound" signal where the file has a
sound track. Opened, a clip is read part by part: only short ones are held in memory.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from inrcodec.errors import SignalError
from inrcodec.signals.lazy import AnySignal
from inrcodec.signals.reading_errors import reason
from inrcodec.signals.video_formats import CODINGS
from inrcodec.signals.whole_files import checked_file

MODALITY = "video"
DEFAULT_EXTENSION = ".mp4"

_READ_ONLY = {".gif", ".m4v", ".3gp", ".mpg", ".mpeg", ".ts", ".flv", ".ogv", ".wmv", ".y4m"}
WRITABLE = tuple(CODINGS)
EXTENSIONS: frozenset[str] = frozenset(CODINGS) | frozenset(_READ_ONLY)


@contextmanager
def opened(path: Path) -> Iterator[list[AnySignal]]:
    """Open a video file, or a folder of frames, as [picture] or [picture, sound], to be read part by part.

    The file is decoded to its end once, before anything is given. The frames and the sound of short clips then stay in
    memory; those of long ones are decoded again where they are read, from the beginning where that means going back.

    picture: [T, H, W, 3] uint8 RGB, value range (0, 255), turned upright when the file says how the camera
        was held. The frame rate is the file's average rate, exactly; frames at uneven times are repeated at the lowest
        constant rate that has a tick for each of them, so that picture and sound stay together. YUV is converted with
        the matrix and the range the file is tagged with; untagged files are taken as players do, BT.709 from 720
        lines on and BT.601 below. More than 8 bits are rounded to 8, transparent places become black with a warning
        (VP8 and VP9 lose their alpha, with another warning), interlaced frames stay interlaced.
        `attributes` is empty unless pixels are not square: then "pixel_aspect" is [width, height]; or colours
        are not those of BT.709: then "colour" is [primaries, transfer] in the numbers of ITU-T H.273, as of HDR.
    sound: the sound track that is marked as the default, else the first, modality "audio", name "sound", [time,
        channels, 1] float32 at its own sample rate, value range (-peak, peak); trimmed or preceded by silence so that
        it begins with the picture, with silence where packets are missing.

    A folder holds the frames as .png, .jpg or .webp images of one size, in natural order of their names
    ("2.png" before "10.png"); other files in it are ignored. Transparent places become black, with a
    warning. Its rate is 25 frames per second.

    Raises: SignalError if there is no such file, it is no video or cut short, its time stamps jump, frames differ in
        size, or frames at uneven times would have to be repeated more than 10,000 times on average.
    """
    from inrcodec.signals.video_completeness import check_complete
    from inrcodec.signals.video_frames import folder_picture, readable

    if path.is_dir():
        with readable(path):
            picture = folder_picture(path)
        yield [picture]
        return
    if not path.is_file():
        raise SignalError(f"{path}: no such file or folder; give the path of a video or a folder of frames")
    with readable(path):
        check_complete(path)
    from inrcodec.signals.video_reading import opened_container

    with opened_container(path) as signals:
        yield signals


def write(signals: Sequence[AnySignal], path: Path) -> None:
    """Write a picture and, if there is a second signal, its sound, part by part.

    The extension, one of `WRITABLE`, says the codecs.

    .mkv: FFV1 and 16-bit FLAC, lossless: the pixels read back are the pixels written.
    .mp4, .mov: H.264 at CRF 12 (4:2:0, or 4:4:4 where a side is odd) and AAC.
    .webm: VP9 and Opus. .avi: Motion JPEG and 16-bit PCM.

    Frame rates are kept exactly where the container can, within 1e-6 otherwise; the pixel aspect is lost in
    .mkv and .webm. Sound is resampled where the codec does not know its sample rate, and lossy codecs may
    append a few milliseconds of silence.

    Raises: SignalError if the signals are no clip, the file cannot be written, or .avi cannot say what their colours
        are.
    """
    import av

    from inrcodec.signals.video_completeness import check_complete
    from inrcodec.signals.video_writing import checked, write_container

    coding = CODINGS[path.suffix.lower()]
    picture, sound = checked(signals, coding, path)
    try:
        with checked_file(path) as file, av.open(file, "w", format=coding.container) as container:
            write_container(container, coding, picture, sound, path)
        check_complete(path)
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError, MemoryError) as error:
        raise SignalError(f"{path}: cannot be written ({reason(error)})") from error
