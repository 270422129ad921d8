"""The command line `inrcodec`: parses, calls the library, shows; one module per subcommand."""

import os
import signal
from collections.abc import Sequence

from inrcodec.cli.interruption import Terminated, terminations

__all__ = ["main"]

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; `argv` without its name, None for the process's own arguments.

    Returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C, 128 + n after signal n.
    """
    # Before torch is imported: where other programs use the cores too, threads that wait by spinning take them from
    # those they wait for, and a picture takes minutes instead of seconds.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with terminations():
            from inrcodec.cli.app import run  # takes a while, in which signals already do what they do later

            return run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated as stop:
        from inrcodec.cli import console

        console.error(str(stop))
        return 128 + stop.number
    finally:
        # Python takes up to a second to end. Ctrl-C ends it at once then, without a traceback.
        if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
