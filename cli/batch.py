"""Several inputs of one command, of which one that fails does not stop the others."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from inrcodec.cli import console
from inrcodec.errors import InrcodecError


class Batch:
    """The count of the inputs that failed.

    several: whether to go on after a failure; a command's only input has its error raised.
    """

    def __init__(self, context: typer.Context, *, several: bool, quiet: bool) -> None:
        self._debug: bool = context.obj.debug
        self._several = several
        self._quiet = quiet
        self._done = self._failed = 0

    @contextmanager
    def item(self, source: Path) -> Iterator[None]:
        """Show an error of the block in one line that names the input, and count it."""
        self._done += 1
        try:
            yield
        except Exception as error:
            if not self._several or (self._debug and not isinstance(error, InrcodecError)):
                raise
            self._failed += 1
            name, message = str(source), console.message_of(error)
            console.error(message if name in message else f"{name}: {message}")

    def finish(self) -> None:
        """Say how many failed. Raises: typer.Exit of code 1 if any did."""
        if not self._failed:
            return
        if not self._quiet:
            console.say(f"{self._failed} of {self._done} files failed")
        raise typer.Exit(1)
