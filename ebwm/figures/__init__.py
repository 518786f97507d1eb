"""Figures: their registry, running their notebooks, what they leave, and what it says of the papers.

Notebooks take what they need from `ebwm.figures.record` and `ebwm.figures.style`, so that the machinery
may change without making every figure stale.
"""

from ebwm.figures.batch import Outcome, make, run
from ebwm.figures.errors import FigureError, NotebookError, suggest
from ebwm.figures.job import run_job, up_to_date
from ebwm.figures.ledger import check, promote, replay
from ebwm.figures.notebook import parameter_defaults
from ebwm.figures.plan import Job, Plan, jobs_of, plan
from ebwm.figures.record import Record
from ebwm.figures.registry import Claim, Figure, Planned, Registry, registry
from ebwm.figures.table import table

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
    "suggest",
    "table",
    "up_to_date",
]
