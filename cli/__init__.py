"""The command line `inrcodec`: parses, calls the library, shows; one module per subcommand."""

from inrcodec.cli.app import main

__all__ = ["main"]
