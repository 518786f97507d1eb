"""Refusals of ebwm.checks."""

from ebwm import checks

CASES = [
    ("below the least", lambda: checks.at_least("steps", 0, 1), ValueError, "steps=0"),
    ("not a number", lambda: checks.at_least("steps", float("nan"), 1), ValueError, "steps=nan"),
    ("not positive", lambda: checks.positive("step_size", 0.0), ValueError, "step_size=0"),
    ("infinite", lambda: checks.positive("step_size", float("inf")), ValueError, "step_size=inf"),
    ("negative", lambda: checks.finite("noise", -1.0), ValueError, "noise=-1"),
    ("outside", lambda: checks.between("layer", 7, 0, 5), ValueError, "layer=7"),
    ("unknown", lambda: checks.one_of("start", "nois", ("noise", "last")), ValueError, "mean 'noise'"),
]
