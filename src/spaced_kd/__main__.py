"""`python -m spaced_kd` is the command line."""

import sys

from spaced_kd.cli.main import main

sys.exit(main())
