"""The installed initializations, and which one is used."""

from pathlib import Path

import pytest

from inrcodec import registry
from inrcodec.errors import UnknownInitialization
from inrcodec.initialization import Initialization
from inrcodec.registry import default_initialization


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the initializations that are loaded, in their order."""
    names: list[str] = []
    usual = Initialization.load

    def load(path: Path) -> Initialization:
        names.append(path.stem)
        return usual(path)

    monkeypatch.setattr(Initialization, "load", load)
    return names


def test_no_file_is_loaded_twice(tiny_installed: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    own = [path for path in registry.installed() if path.parent == tiny_installed]
    monkeypatch.setattr(registry, "installed", lambda: iter(own))
    monkeypatch.setitem(registry.DEFAULTS, "image", "tiny-image")
    assert default_initialization("image", "siren").field.name == "siren"
    assert loaded == ["tiny-image"]  # the default first
    loaded.clear()
    with pytest.raises(UnknownInitialization, match=r"^no 'nerv' initialization for image is installed, but of siren:"):
        default_initialization("image", "nerv")
    assert sorted(loaded) == ["tiny-audio", "tiny-image"]
