"""`python -m pyprof`."""

import sys

from pyprof.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
