"""Make the small policies in ebwm/models: `python -m benchmarks.ship_policy`.

An EBT-Policy and a Diffusion Policy are trained on 100 scripted episodes of `reach`, on the CPU, and saved with a card:
success rates over 200 episodes with Wilson's interval, and how often they go left and right.
"""

import platform
from collections import Counter

import numpy as np
import torch

from ebwm.files import write_json
from ebwm.policy.demonstrations import collect
from ebwm.policy.evaluation import evaluate_policy, evaluation_seeds, summarise
from ebwm.policy.policies import PolicySettings, load_policy
from ebwm.policy.reach import side_of_path
from ebwm.policy.training import train_policy
from ebwm.writing import INCLUDED

EPISODES, UPDATES, TESTED = 100, 3000, 200
SIZES = dict(dim=64, depth=2, updates=UPDATES)
SHIPPED = {"reach": PolicySettings.named("ebt", learning_rate=4e-3, **SIZES),
           "reach_diffusion": PolicySettings.named("diffusion", **SIZES)}


def scored(folder):
    """Success rate and sides of the episodes of a policy."""
    found = evaluate_policy(load_policy(folder), "reach", evaluation_seeds(TESTED), workers=0, batch=TESTED, trace=True)
    sides = Counter(side_of_path(np.array(result.trace["states"])[:, :2]) if result.success else "failed"
                    for result in found)
    return {"success": summarise(found).rate._asdict(), "sides": dict(sides)}


def main():
    torch.set_num_threads(1)
    demonstrations = collect("reach", EPISODES, seed=0)
    for name, options in SHIPPED.items():
        train_policy(demonstrations, INCLUDED / name, options)
        made = {"episodes": EPISODES, "demonstrations": demonstrations.digest, "tested": TESTED}
        card = made | scored(INCLUDED / name) | {"python": platform.python_version(), "torch": torch.__version__}
        write_json(INCLUDED / name / "card.json", card)
        print(name, card)


if __name__ == "__main__":
    main()
