"""`python -m ebwm` is the command `ebwm`."""

import sys

from ebwm.cli import main

sys.exit(main())
