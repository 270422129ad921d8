"""`inrcodec inits`."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import Run, is_one_error


def test_inits(run: Run, tiny_installed: Path) -> None:
    code, out, _ = run("inits", "--json")
    found = {each["name"]: each for each in json.loads(out)}
    assert code == 0
    assert found["tiny-image"]["modality"] == "image" and found["tiny-audio"]["modality"] == "audio"
    code, out, _ = run("inits")
    assert code == 0 and "tiny-image" in out and found["tiny-image"]["identifier"] in out
    card = (tiny_installed / "tiny-image.md").read_text()
    for name in ("tiny-image", found["tiny-image"]["identifier"], tiny_installed / "tiny-image.safetensors"):
        assert run("inits", name) == (0, card.rstrip() + "\n", "")
        assert json.loads(run("inits", name, "--json")[1]) == found["tiny-image"] | {
            "path": str(tiny_installed / "tiny-image.safetensors")
        }


def test_inits_reports_damaged_files(
    run: Run, folder: Path, tiny_initializations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(tiny_initializations / "tiny-image.safetensors", folder / "good.safetensors")
    (folder / "bad.safetensors").write_text("no initialization")
    monkeypatch.setenv("INRCODEC_INITIALIZATIONS", str(folder))
    code, out, err = run("inits")
    assert code == 1 and "good" in out and is_one_error(err, "bad.safetensors")
    code, _, err = run("inits", "good")
    assert code == 1 and is_one_error(err, "model card")
