"""`python -m gkd …` is the `gkd` command."""

import sys

from gkd.cli.main import main

if __name__ == "__main__":
  sys.exit(main())
