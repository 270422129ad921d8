"""The program's subcommands, and how failures become one line and an exit code."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
import typer.main
from typer.exceptions import TyperException

from inrcodec import __version__
from inrcodec.cli import console
from inrcodec.cli.decode import decode
from inrcodec.cli.encode import encode
from inrcodec.cli.info import info
from inrcodec.cli.inits import inits
from inrcodec.cli.interruption import Terminated, terminations
from inrcodec.cli.meta_train import meta_train
from inrcodec.cli.verify import verify
from inrcodec.errors import UsageError
from inrcodec.parallel import end_helpers

FAILURE, USAGE = 1, 2

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
app.command("encode")(encode)
app.command("decode")(decode)
app.command("info")(info)
app.command("verify")(verify)
app.command("inits")(inits)
app.command("meta-train")(meta_train)


@dataclass
class _Session:
    """What the options of the program itself say.

    speaks: asked once, whether this process says why it fails; of several that do one thing together, one does.
    """

    debug: bool = False
    speaks: Callable[[], bool] = lambda: True

    def fail(self, message: str) -> None:
        if self.speaks():
            console.error(message)


def _show_version(asked: bool) -> None:
    if asked:
        console.data(f"inrcodec {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def program(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Compress images, video, sound and climate fields into neural fields; rebuild them at any resolution."""
    context.obj.debug = debug
    if context.invoked_subcommand is None:
        console.data(context.get_help())


def run(argv: Sequence[str] | None) -> int:
    """Run the program, and return its exit code. Raises: KeyboardInterrupt for Ctrl-C."""
    session = _Session()
    command = typer.main.get_command(app)
    try:
        with terminations(), console.shown_warnings(debug=lambda: session.debug):
            code = command.main(
                None if argv is None else list(argv), prog_name="inrcodec", standalone_mode=False, obj=session
            )
    except Terminated as stop:
        session.fail(str(stop))
        return 128 + stop.number
    except TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context else ""
        session.fail(error.format_message() + hint)
        return int(error.exit_code)
    except Exception as error:
        if session.debug:
            raise
        session.fail(console.message_of(error))
        return USAGE if isinstance(error, UsageError) else FAILURE
    finally:
        end_helpers()
    return code if isinstance(code, int) else 0
