"""`python -m spaced_kd` is the command line."""

import sys

from spaced_kd.cli.warm import main

sys.exit(main())
