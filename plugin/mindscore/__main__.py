"""``python -m mindscore``: the command line."""

import sys

from mindscore.cli import main

if __name__ == "__main__":
    sys.exit(main())
