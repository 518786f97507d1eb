"""Run one job of a batch: `python -m ebwm.figures JOB.json`."""

import sys

from ebwm.figures.job import main

sys.exit(main(sys.argv[1:]))
