"""Run the command line as `python -m multibox`."""

import sys

from multibox.cli import main

if __name__ == "__main__":
    sys.exit(main())
