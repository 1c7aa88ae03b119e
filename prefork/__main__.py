"""``python -m prefork`` is the same as ``prefork``."""

import sys

from prefork.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
