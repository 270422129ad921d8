"""The code that is measured: the working tree and an earlier revision, each laid out as it installs."""

import compileall
import io
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from inrcodec.errors import UsageError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Revision:
    """This is the code in one of its states.

    label: what the table calls it. hash: of its commit; changed: whether the files differ from that commit.
    tree: folder to import the package from. present: whether it is the working tree.
    """

    label: str
    hash: str
    changed: bool
    tree: Path
    present: bool


def working_tree(folder: Path) -> Revision:
    """Lay out the code as it is on the disk. Raises: UsageError outside a git checkout."""
    tree = folder / "now"
    lay_out(ROOT, tree)
    changed = bool(_git("status", "--porcelain", "--", *_packages(ROOT).values()))
    return Revision("now", _git("rev-parse", "HEAD").decode().strip(), changed, tree, True)


def earlier(name: str, folder: Path) -> Revision:
    """Lay out a revision that git knows; one that is laid out in the folder already is used again.

    Raises: UsageError if there is none of this name.
    """
    found = _git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    tree = folder / found
    if not tree.exists():
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            source, whole = Path(temporary) / "source", Path(temporary) / "tree"
            with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", found))) as archive:
                archive.extractall(source, filter="data")
            lay_out(source, whole)
            whole.rename(tree)
    return Revision(found[:7], found, False, tree, False)


def lay_out(source: Path, tree: Path) -> None:
    """Copy the packages of a checkout to where they are installed, as its pyproject.toml says, and compile them.

    The subpackages are folders of their own at the root of a checkout, and an editable install in the same environment
    would give them from another one. What the code depends on comes from this environment.
    """
    for package, folder in sorted(_packages(source).items()):  # a package before what is below it
        target = tree.joinpath(*package.split("."))
        shutil.copytree(source / folder, target, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(tree, quiet=1)


def _packages(source: Path) -> dict[str, str]:
    """Return the folders of a checkout that are packages, by their names; others are in the folders of these."""
    settings = tomllib.loads((source / "pyproject.toml").read_text())["tool"]["setuptools"]
    return dict(settings.get("package-dir", {"inrcodec": "inrcodec"}))


def _git(*arguments: str) -> bytes:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode(errors="replace").strip() or str(error)
        raise UsageError(
            f"git {arguments[0]} failed ({reason}): run it in a checkout, with a revision of it"
        ) from error
