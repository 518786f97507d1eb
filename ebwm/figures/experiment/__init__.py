"""What the figure notebooks share: learners, jobs by seed, traces of walks, intervals, panels and tuning.

A figure notebook states a question, its settings, the measurement of one seed, the comparison and the answer. All
that two notebooks would repeat is here, as small functions on arrays, data frames and axes:

- `runs`: `Experiment`, the only class that a notebook must know. It holds the record, the device and the parameters;
  `learner` builds a model, `train` fits it on batches in the order of `ebwm train`, `each` runs the jobs of the seeds
  under one progress bar, `tune` declares the trials that chose the settings, `close` writes the manifest.
- `tuning`: searches over settings, one setting after another, and the file tuning.json.
- `walks`: energies and losses along walks (`trace`, `traces`), and what follows from them without another
  walk (`Walks`): the best of N samples, adaptive stopping, and its control with random stopping. Every use of
  sampling by the figures is here or goes through `Walk`.
- `tables`: data frames of nested results (`join`), matrices [seeds items] (`matrix`), and intervals as dictionaries
  with `value`, `low` and `high`; the bounds are None if there is one seed.
- `panels`: lines over seeds, points with intervals, logarithmic axes and headings in the project's style.
- `text`: the task and the models of the figures of text, the chosen settings, sums of losses over windows, and walks.
- `tokens`, `scaling`: energies of tokens by step, and exponents of losses by size with their intervals.
- `forks`, `contexts`: measurements on forking digits, and their tables by context.
- `row_space`, `ranking`: directions that a narrow map does not see; walks to choose from, and ranks of true states.
- `probes`, `densities`, `variants`: linear probes of contexts, samplers on known densities, variants for the ablation.

Conventions. A *kind* is the name of a model in a comparison. Tables that a notebook returns for one seed are data
frames, lists of rows or single rows; `join` adds the kinds as columns, and `each` the seed. Functions get the
parameters that they need as arguments and do not read the notebook's globals, so that `ebwm figures tune ID` can
train the same models with other settings. A notebook declares its trials once:

    tuning = exp.tune({"ebt": search(("learning_rate", (2e-3, 4e-3, 8e-3)), ("step_size", (5.0, 20.0)), step_size=10.0),
                       "transformer": search(("learning_rate", (2e-3, 4e-3, 8e-3, times(0.7), times(1.4))))}, score)

In a run of the figure `tune` returns the recorded trials; under `ebwm figures tune` it makes them.

Modules are imported one by one (`from ebwm.figures.experiment.runs import Experiment`), so that the key of a
figure holds only those that it uses, and a change of one measurement leaves other figures up to date.
"""
