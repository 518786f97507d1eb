"""Choose the settings of the figures of text: `python -m benchmarks.tune_text`.

Four ways to learn the embedded text get seven trials each on validation windows, with a seed that no
figure uses: values of one setting, then of the next at the best so far. An EBT gets three step sizes, then
two more scales of the tokens' initial embeddings, then two more learning rates: by S1 with the update of the
authors' code and with that of their paper, whose step sizes have to be larger by about the number of tokens,
and by S2, whose noise is 3 on logits, as in the authors' runs. The Transformer++ has no step size and gets
five learning rates, then two more scales. Trials and what they cost go to figures/text_scaling/tuning.json;
all figures of text read it.
"""

from functools import partial

from ebwm.data.tasks import TextConfig, load_task
from ebwm.training.configuration import Config, ModelConfig, OptimiserConfig, RecipeConfig, WalkConfig
from ebwm.training.learner import make_learner

from .tuning import SEED, one_by_one, text_score, tune

FIGURE = dict(tokenizer="train:1024", length=64, dim=64, depth=2, heads=4, batch=8, updates=400,
              eval_windows=200)
RATES, SCALES = (3e-3, 12e-3), (0.1, 0.01)
SEARCHES = {
    "transformer": {"learning_rate": (9e-3, 3e-3, 6e-3, 12e-3, 18e-3), "embedding_std": (0.3, 0.1)},
    "s1": {"step_size": (20.0, 6.0, 60.0), "embedding_std": SCALES, "learning_rate": RATES},
    "paper": {"step_size": (8e3, 2e3, 3.2e4), "embedding_std": SCALES, "learning_rate": RATES},
    "s2": {"step_size": (15.0, 5.0, 50.0), "embedding_std": SCALES, "learning_rate": RATES},
}
FIRST = {"learning_rate": 6e-3, "embedding_std": 0.03}  # of an EBT; 1, as in the papers, of the baseline


def configuration(name, figure, seed=SEED, learning_rate=6e-3, embedding_std=1.0, step_size=1.0):
    """A run of one of the four ways."""
    shape = {key: figure[key] for key in ("dim", "depth", "heads")}
    kind = "transformer" if name == "transformer" else "ebt"
    update = "paper" if name == "paper" else "code"
    model = ModelConfig(kind, **shape, embedding_std=embedding_std)
    walk = WalkConfig(step_size=step_size, update=update)
    recipe, multiplier = RecipeConfig(), 3.0
    if name == "s2":
        recipe, multiplier = RecipeConfig("s2", most=3, unroll=1, noise=3.0), 0.0
    updates = figure["updates"]
    optimiser = OptimiserConfig(updates, figure["batch"], learning_rate, warmup=updates // 10,
                                         step_size_multiplier=multiplier)
    data = TextConfig(**{key: figure[key] for key in ("tokenizer", "length", "eval_windows")})
    return Config(model, data, optimiser, seed, eval_every=updates, recipe=recipe, walk=walk)


def trial(name, figure, **chosen):
    """One way to learn with these settings, and its score."""
    config = configuration(name, figure, **chosen)
    task = load_task(config.data)
    data, learner = task.splits, make_learner(config.model, task, SEED, config.recipe, config.walk)
    row = {"model": name, **chosen} | text_score(learner, config, data, figure)
    print(row, flush=True)
    return row


def search(name, figure):
    """All trials of one way to learn."""
    first = {"embedding_std": 1.0} if name == "transformer" else FIRST
    return one_by_one(partial(trial, name, figure), SEARCHES[name], first)


if __name__ == "__main__":
    load_task(configuration("s1", FIGURE).data)
    tune("text_scaling", SEARCHES, search, FIGURE, __doc__.splitlines()[0])
