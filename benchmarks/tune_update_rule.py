"""Choose the settings of the figure of update rules: `python -m benchmarks.tune_update_rule`.

Ways to learn that `benchmarks.tune_text` doesn't try: walks that start at zeros, with either update, and
walks of logits that go into the map without any softmax, from noise and from zeros. Each gets what the ways
there got, seven trials on validation windows with a seed that no figure uses: three step sizes, then two more
scales of the tokens' initial embeddings, then two more learning rates. Trials and what they cost go to
figures/update_rule/tuning.json.
"""

from dataclasses import replace
from functools import partial

import torch

from ebwm.data.task import token_errors
from ebwm.data.tasks import load_task
from ebwm.objective import StreamedLoss, cross_entropy
from ebwm.sampler import gradient_descent, init_candidates, run
from ebwm.training.learner import Learner, make_learner

from .tune_text import FIGURE, FIRST, configuration
from .tuning import SEED, one_by_one, text_score, tune

REST = {"embedding_std": (0.03, 0.3), "learning_rate": (3e-3, 12e-3)}
SEARCHES = {
    "code_zeros": {"step_size": (20.0, 6.0, 60.0)} | REST,
    "paper_zeros": {"step_size": (500.0, 125.0, 2e3)} | REST,
    "raw_zeros": {"step_size": (2.0, 0.2, 20.0)} | REST,
    "raw_noise": {"step_size": (20.0, 2.0, 200.0)} | REST,
}


def raw(learner, config, ignore):
    """The same model, whose logits go into the map as they are; it learns by recipe S1."""
    model, steps = learner.model, config.steps

    def walk(landscape, states, generator, **how):
        begin = init_candidates(config.start, model.encode(states), generator)
        return run(landscape, begin, gradient_descent(model.step_size), steps, final_energy=False, **how)

    def loss(states, targets, generator):
        streamed, losses = StreamedLoss(model.landscape(states)), []

        def compare(index, state, info):
            losses.append(streamed.add(cross_entropy(state.y, targets, ignore) / steps))

        walk(streamed.landscape, states, generator, create_graph=True, callback=compare)
        return streamed.finish(torch.stack(losses).sum())

    predict = lambda states, generator: walk(model.landscape(states), states, generator).state.y
    return Learner(model, loss, predict, errors=partial(token_errors, ignore_index=ignore))


def trial(way, figure, **chosen):
    """One way to learn with these settings, and its score."""
    form, start = way.split("_")
    config = configuration("paper" if form == "paper" else "s1", figure, **chosen)
    config = replace(config, walk=replace(config.walk, start=start))
    task = load_task(config.data)
    data, learner = task.splits, make_learner(config.model, task, SEED, config.recipe, config.walk)
    learner = raw(learner, config.walk, task.state.ignore_index) if form == "raw" else learner
    row = {"model": way, **chosen} | text_score(learner, config, data, figure)
    print(row, flush=True)
    return row


def search(way, figure):
    """All trials of one way to learn."""
    return one_by_one(partial(trial, way, figure), SEARCHES[way], FIRST)


if __name__ == "__main__":
    tune("update_rule", SEARCHES, search, FIGURE, __doc__.splitlines()[0])
