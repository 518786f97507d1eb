"""Figures: the registry, the runner of notebooks, records, and the verdicts on the papers' claims.

Notebooks import from `ebwm.figures.record` and `ebwm.figures.style`, so that a change of the engine does not
make every figure stale.
"""

import importlib
from typing import Any

from ebwm.figures.batch import Outcome, make, run
from ebwm.figures.errors import FigureError, NotebookError
from ebwm.figures.job import run_job, up_to_date
from ebwm.figures.ledger import check, promote
from ebwm.figures.notebook import parameter_defaults
from ebwm.figures.plan import Job, Plan, jobs_of, plan, suffix
from ebwm.figures.registry import Claim, Figure, Planned, Registry, registry
from ebwm.figures.table import table

EXPORTS = {  # name: the module that defines it, imported on first use because it imports numpy or torch
    "Record": "ebwm.figures.record",
    "replay": "ebwm.figures.comparison",
}
__all__ = [
    "Claim",
    "Figure",
    "FigureError",
    "Job",
    "NotebookError",
    "Outcome",
    "Plan",
    "Planned",
    "Record",
    "Registry",
    "check",
    "jobs_of",
    "make",
    "parameter_defaults",
    "plan",
    "promote",
    "registry",
    "replay",
    "run",
    "run_job",
    "suffix",
    "table",
    "up_to_date",
]


def __getattr__(name: str) -> Any:
    if name not in EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(EXPORTS[name]), name)
