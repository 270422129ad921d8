"""`python -m inrcodec` is the command line."""

import sys

from inrcodec.cli import main

if __name__ == "__main__":
    sys.exit(main())
