"""`inrcodec encode`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from command_line import FAST, Run, is_one_error, photo

from inrcodec import files as files_module
from inrcodec.cli.encode import encode_options
from inrcodec.options import EncodeOptions
from inrcodec.weights.codec import STEPS


def test_json_of_encode_and_decode(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    code, out, _ = run("encode", "photo.png", "--init", "tiny-image", "--embed", "--json", *FAST)
    report = json.loads(out)
    assert code == 0 and out.count("\n") == 1
    assert report["bytes"] == (folder / "photo.inr").stat().st_size
    assert report["bits_per_sample"] == pytest.approx(8 * report["bytes"] / (32 * 40))
    assert {"input", "output", "initialization", "field", "seconds", "device", "steps"} <= report.keys()
    code, out, _ = run("decode", "photo.inr", "-o", "new.png", "--json")
    keys = {"input", "output", "modality", "shape", "seconds", "device"}
    assert code == 0 and json.loads(out).keys() == keys
    assert json.loads(out)["shape"] == [32, 40]


def test_options_that_are_left_out_are_the_encoders_own(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    code, out, _ = run("encode", "photo.png", "--init", "tiny-image", "--json")
    assert code == 0 and json.loads(out)["steps"] == STEPS[EncodeOptions().effort]
    assert "--quality" in run("encode", "--help")[1]


def test_quality_changes_the_size(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")

    def size(quality: int) -> int:
        arguments = ("--force", "--quality", quality, "--init", "tiny-image", *FAST)
        assert run("encode", "photo.png", "-o", "out.inr", *arguments)[0] == 0
        return (folder / "out.inr").stat().st_size

    assert size(5) < size(60)


def test_targets_reach_the_encoder() -> None:
    assert encode_options(bits_per_sample=1.5, psnr=None) == EncodeOptions(bits_per_sample=1.5)
    assert encode_options(psnr=30.0, rescaling="none") == EncodeOptions(psnr=30.0, rescaling="none")


def test_folder_keeps_its_tree(run: Run, folder: Path) -> None:
    photo(folder / "in" / "a.png", 1)
    photo(folder / "in" / "deep" / "b.png", 2)
    (folder / "in" / "notes.txt").write_text("no picture")
    code, out, err = run("encode", "in", "-o", "out", "--init", "tiny-image", "--json", *FAST)
    assert code == 0
    assert sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.inr")) == [
        "a.inr",
        str(Path("deep", "b.inr")),
    ]
    assert len([json.loads(line) for line in out.splitlines()]) == 2
    assert err.count("\n") == 3 and err.splitlines()[-1].startswith("2 files: 2 encoded; ")


def test_one_of_several_fails(run: Run, folder: Path) -> None:
    files = [photo(folder / "a.png"), folder / "broken.png", photo(folder / "c.png"), folder / "none.png"]
    files[1].write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    code, _, err = run("encode", *files, "-o", "out", "--init", "tiny-image", *FAST)
    assert code == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.inr", "c.inr"]
    lines = err.splitlines()
    assert sum(line.startswith("inrcodec: error: ") and "broken.png" in line for line in lines) == 1
    assert sum(line.startswith("inrcodec: error: ") and "none.png" in line for line in lines) == 1
    read = sum(files[number].stat().st_size for number in (0, 2))
    written = sum(path.stat().st_size for path in Path("out").iterdir())
    assert lines[-1] == f"4 files: 2 encoded, 2 failed; {read:,} -> {written:,} bytes"


def test_one_of_several_fails_as_nobody_expected(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [photo(folder / "a.png"), photo(folder / "b.png")]
    encode_file = files_module.encode_file

    def failing(source: Path, *arguments: Any, **options: Any) -> Any:
        if source == files[0]:
            raise ZeroDivisionError("a defect")
        return encode_file(source, *arguments, **options)

    monkeypatch.setattr(files_module, "encode_file", failing)
    command = ["encode", *files, "-o", "out", "--init", "tiny-image", *FAST]
    code, _, err = run(*command)
    assert code == 1
    assert [path.name for path in Path("out").iterdir()] == ["b.inr"]
    assert "a.png: unexpected ZeroDivisionError (a defect)" in err
    with pytest.raises(ZeroDivisionError):
        run("--debug", *command)


@pytest.mark.parametrize("device", ["meta", "cuda:x", "mps", "CPU", ""])
def test_devices_there_are_none_of(run: Run, folder: Path, device: str) -> None:
    code, _, err = run("encode", photo(folder / "a.png"), "--device", device)
    assert code == 2
    assert is_one_error(err, f"device {device!r} cannot be used: use auto, cpu or cuda[:n]")


def test_two_inputs_of_one_name(run: Run, folder: Path) -> None:
    files = [photo(folder / "a.png"), photo(folder / "a.bmp", 2)]
    code, _, err = run("encode", *files, "-o", "out", "--init", "tiny-image", "--quiet", *FAST)
    assert code == 1
    assert is_one_error(err, "a.bmp", "another input")


def test_several_inputs_need_a_folder(run: Run, folder: Path) -> None:
    files = [photo(folder / "a.png"), photo(folder / "b.png")]
    (folder / "file").write_text("in the way")
    for output in ([], ["-o", "-"], ["-o", "file"]):
        code, out, err = run("encode", *files, *output, "--init", "tiny-image")
        assert (code, out) == (2, "") and is_one_error(err, "folder")
    assert (folder / "file").read_text() == "in the way"
    (folder / "empty").mkdir()
    code, _, err = run("encode", "empty", "-o", "out")
    assert code == 2 and is_one_error(err, "empty")


def test_derived_output_is_not_overwritten(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    (folder / "photo.inr").write_bytes(b"precious")
    code, _, err = run("encode", "photo.png", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "photo.inr", "-o")
    assert (folder / "photo.inr").read_bytes() == b"precious"

    code, _, err = run("encode", "photo.png", "-o", "photo.inr", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "photo.inr", "--force")
    assert (folder / "photo.inr").read_bytes() == b"precious"

    assert run("encode", "photo.png", "-o", "photo.inr", "--force", "--init", "tiny-image", *FAST)[0] == 0
    before = (folder / "photo.png").read_bytes()
    code, _, err = run("decode", "photo.inr")
    assert code == 2 and is_one_error(err, "photo.png", "-o")
    assert (folder / "photo.png").read_bytes() == before
    assert run("decode", "photo.inr", "--force", "-o", "photo.png")[0] == 0
    assert (folder / "photo.png").read_bytes() != before


def test_encode_writes_no_pictures(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    code, _, err = run("encode", "photo.png", "-o", "small.jpg", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "small.jpg", ".inr", "decode")
    assert not (folder / "small.jpg").exists()


@pytest.mark.parametrize("target", [("--bpp", "1"), ("--psnr", "30"), ("--max-error", "4")])
def test_a_quality_and_a_target_contradict_each_other(run: Run, folder: Path, target: tuple[str, str]) -> None:
    photo(folder / "photo.png")
    code, _, err = run("encode", "photo.png", "-q", "50", *target, "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "quality")


def test_a_target_out_of_reach_says_what_was_reached(run: Run, folder: Path) -> None:
    photo(folder / "photo.png")
    code, _, err = run("encode", "photo.png", "--bpp", "0.001", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "0.001", "smallest file")
    code, _, err = run("encode", "photo.png", "--psnr", "99", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "99", "dB", "best reconstruction")
    code, _, err = run("encode", "photo.png", "--bpp", "500", "--init", "tiny-image", *FAST)
    warning, summary = err.splitlines()
    assert code == 0 and "warning" in warning and "500" in warning and summary.startswith("photo.png -> ")


def test_an_unreadable_file_does_not_stop_the_others(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        photo(folder / f"{name}.png")
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "b.png":  # as for a user who may not read it; the tests may run as root
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    code, _, err = run("encode", "a.png", "b.png", "c.png", "-o", "out/", "--init", "tiny-image", *FAST)
    assert code == 1
    assert err.count("inrcodec: error: ") == 1 and "b.png" in err and "Permission denied" in err
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.inr", "c.inr"]


def test_input_is_never_the_output(run: Run, folder: Path) -> None:
    before = photo(folder / "photo.png").read_bytes()
    code, _, err = run("encode", "photo.png", "-o", "photo.png", "--init", "tiny-image", *FAST)
    assert code == 2 and is_one_error(err, "photo.png")
    assert (folder / "photo.png").read_bytes() == before


def test_interrupted_encoding_leaves_nothing(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(folder / "photo.png")

    def press_ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inrcodec.files.encode_signals", press_ctrl_c)
    code, out, err = run("encode", "photo.png", "--init", "tiny-image")
    assert (code, out) == (130, "") and "Traceback" not in err
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


def test_names_may_be_as_long_as_the_file_system_allows(run: Run, folder: Path) -> None:
    name = "a" * 251 + ".inr"
    code, _, err = run("encode", photo(folder / "a.png"), "-o", name, "--init", "tiny-image", *FAST)
    assert code == 0, err
    assert [path.name for path in folder.iterdir() if path.suffix == ".inr"] == [name]


def hourly(path: Path, first: int) -> Path:
    """Write three hours of a field from an hour on."""
    times = first + np.arange(3)
    t = 280 + np.add.outer(times, np.add.outer(np.arange(5.0), np.arange(8.0)))
    data = xarray.DataArray(t.astype("f4"), {"time": times}, ("time", "latitude", "longitude"), "t")
    data.time.attrs["units"] = "hours since 2019-01-01"
    data.to_netcdf(path)
    return path


def test_a_series_of_files(run: Run, folder: Path) -> None:
    files = [hourly(folder / f"{first}.nc", first) for first in (0, 3)]
    command = ("--series", "time", "--max-error", "0.5", *FAST)
    code, out, err = run("encode", *files, "-o", "all.inr", "--json", *command)
    report = json.loads(out)
    assert code == 0 and report["input"] == f"{files[0]} .. {files[1]}" and report["output"] == "all.inr"
    assert report["samples"] == 6 * 5 * 8
    assert run("decode", "all.inr", "-o", "all.nc")[0] == 0
    with xarray.open_dataset("all.nc", decode_times=False) as decoded:
        assert decoded.time.values.tolist() == [0, 1, 2, 3, 4, 5]
    against = [argument for file in files for argument in ("--against", file)]
    code, _, err = run("verify", "all.inr", *against, "--series", "time")
    assert code == 0 and "(bound 0.5)" in err
    code, _, err = run("verify", "all.inr", *against)
    assert code == 2 and is_one_error(err, "--series")
    code, _, err = run("verify", "all.inr", "--series", "time")
    assert code == 2 and is_one_error(err, "--against")
    for output in ([], ["-o", "."], ["-o", "out/"]):
        code, _, err = run("encode", *files, *output, *command)
        assert code == 2 and is_one_error(err, "a series is one file: name it")
    code, _, err = run("encode", *files[::-1], "-o", "other.inr", *command)
    assert code == 1 and is_one_error(err, "0.nc comes before", "3.nc", "give the files in order")
    assert not (folder / "other.inr").exists()
    (folder / "in").mkdir()
    for file in files:
        file.rename(folder / "in" / file.name)
    assert run("encode", "in", "-o", "folder.inr", *command)[0] == 0
    assert (folder / "folder.inr").read_bytes() == (folder / "all.inr").read_bytes()


def test_a_zarr_store_and_back(run: Run, folder: Path) -> None:
    pytest.importorskip("zarr")
    with xarray.open_dataset(hourly(folder / "a.nc", 0)) as dataset:
        for path in ("in/a.zarr", "in/deep/b.zarr"):
            dataset.to_zarr(folder / path, zarr_format=2)
    command = ("--max-error", "0.5", *FAST)
    code, _, err = run("encode", "in/a.zarr", "-o", "a.inr", *command)
    assert code == 0 and err.startswith("in/a.zarr -> a.inr: ")
    assert run("encode", "in/a.zarr/", *command)[0] == 0 and (folder / "in" / "a.inr").is_file()
    assert run("encode", "in", "-o", "out", *command)[0] == 0
    assert sorted(map(str, Path("out").rglob("*.inr"))) == ["out/a.inr", "out/deep/b.inr"]
    code, _, err = run("encode", "in/a.zarr", "-o", "b.zarr", *command)
    assert code == 2 and is_one_error(err, "b.zarr", "encode writes .inr files")

    assert run("decode", "a.inr", "-o", "b.zarr")[0] == 0
    with xarray.open_zarr("b.zarr", consolidated=False, chunks=None) as decoded:
        assert float(np.abs(decoded.t - dataset.t).max()) <= 0.5
    for again in ("b.zarr", "b.zarr/"):
        code, _, err = run("decode", "a.inr", "-o", again)
        assert code == 2 and is_one_error(err, "b.zarr is there already", "--force")
    assert "skipped: exists" in run("decode", "a.inr", "-o", "b.zarr", "--skip-existing")[2]
    assert run("decode", "a.inr", "-o", "b.zarr", "--force")[0] == 0
    assert run("decode", "a.inr", "--format", "zarr")[0] == 0 and (folder / "a.zarr" / "zarr.json").is_file()
    code, _, err = run("decode", "a.inr", "-o", "-", "--format", "zarr")
    assert code == 2 and is_one_error(err, "a Zarr store is a folder")
    assert run("decode", "a.inr", "--select", "time=2019-01-01T01", "-o", "c.zarr")[0] == 0
    with xarray.open_zarr("c.zarr", consolidated=False, chunks=None) as part:
        np.testing.assert_array_equal(part.t, decoded.t.sel(time="2019-01-01T01"))
