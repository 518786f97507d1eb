"""The commands `ebwm policy ...`: demos, train, evaluate, play and list."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebwm import checks, settings
from ebwm.compat import require
from ebwm.usage import Failure, Parser, SettingsParser, UsageError, count, subcommands

if TYPE_CHECKING:  # imports torch
    from torch import Tensor

    from ebwm.policy.policies import Policy
    from ebwm.policy.rollout import EpisodeResult
    from ebwm.policy.simulators import Disturbance, Simulator

__all__ = ["EVALUATIONS", "add", "find_policy"]

KINDS = ("ebt", "diffusion", "cloning", "mixture")
SIMULATORS = "reach, metaworld:TASK or robosuite:TASK"
FILE, EVALUATIONS, TRAINING = "policy.json", "evaluations", "training"  # of a policy's folder
FAILED = 1


def add(
    parser: Parser,  # parser of `ebwm policy`
) -> None:
    """Add the commands to a parser."""
    commands = subcommands(parser, "policy", SettingsParser)
    _add_demos(commands.add_parser("demos", help="record demonstrations of a scripted expert"))
    _add_train(commands.add_parser("train", help="train a policy on demonstrations; the same command resumes an interrupted training"))
    _add_evaluate(commands.add_parser("evaluate", help="success rate of a policy with its interval; resumes where it was stopped"))
    _add_play(commands.add_parser("play", help="film an episode of a policy"))
    listed = commands.add_parser("list", help="trained policies and their success rates")
    listed.set_defaults(run=_list)


def _add_demos(parser: Parser) -> None:
    option = parser.add_argument
    option("simulator", metavar="SIMULATOR", help=SIMULATORS)
    option("--episodes", type=count, default=50, metavar="N", help="number of successful episodes; default: 50")
    option("--seed", type=int, default=0, metavar="N", help="fixes initial states and the expert; default: 0")
    option("--style", default="clean", metavar="STYLE", help="clean, or clumsy: with noise, pauses and detours; default: clean")
    option("--image", type=count, metavar="N", help="record images of N x N pixels too; default: none")
    option("--workers", type=count, default=1, metavar="N", help="processes; default: 1")
    option("--out", type=Path, required=True, metavar="FILE", help="file.hdf5, as of robomimic, or a new folder, as of LeRobot")
    parser.set_defaults(run=_demos)


def _add_train(parser: Parser) -> None:
    option = parser.add_argument
    option("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    option("settings", nargs="*", metavar="KEY=VALUE", help="settings to change, as in updates=500 or steps=2")
    option("--demos", type=Path, required=True, metavar="FILE", help="demonstrations: file.hdf5 or a folder")
    option("--mask", metavar="NAME", help="filter of the HDF5 file, such as train; default: all episodes")
    option("--camera", metavar="NAME", help="camera of the images, '' for none; default: the only one")
    option("--unbounded", action="store_true", help="take actions outside of [-1, 1], which are otherwise refused")
    option("--out", required=True, metavar="RUN", help="new folder, or its name in the folder of runs; or of an interrupted training")
    option("--preset", default="ours", metavar="NAME", help="ebt: ours, two_steps, paper or authors; default: ours")
    option("--seed", type=int, default=0, metavar="N", help="fixes weights, batches and noise; default: 0")
    parser.set_defaults(run=_train)


def _add_evaluate(parser: Parser) -> None:
    option = parser.add_argument
    _add_policy(parser)
    option("--episodes", type=count, default=20, metavar="N", help="number of episodes; default: 20")
    option("--seeds", type=int, nargs="+", metavar="N", help="seeds of the episodes; default: as many as episodes, which no demonstration has")
    option("--workers", type=count, default=1, metavar="N", help="processes; default: 1")
    option("--batch", type=count, default=1, metavar="N", help="episodes that a process runs side by side; default: 1")
    option("--out", type=Path, metavar="FOLDER", help=f"folder of the results; default: one in RUN/{EVALUATIONS}")
    parser.set_defaults(run=_evaluate)


def _add_play(parser: Parser) -> None:
    option = parser.add_argument
    _add_policy(parser)
    option("--seed", type=int, metavar="N", help="of the episode; default: the first of an evaluation")
    option("--size", type=count, default=320, metavar="N", help="pixels of the picture along each side; default: 320")
    option("--out", type=Path, required=True, metavar="FILE", help="film to write, which ends in .mp4")
    parser.set_defaults(run=_play)


def _add_policy(parser: Parser) -> None:
    """The options of commands that run a policy."""
    option = parser.add_argument
    option("name", metavar="RUN", help="folder of a policy, or its name in the folder of runs")
    option("settings", nargs="*", metavar="KEY=VALUE", help="settings of the policy to change, as in steps=2 execute=4")
    option("--simulator", metavar="NAME", help=f"{SIMULATORS}; default: that of the demonstrations")
    option("--image", type=count, metavar="N", help="pixels of the images that it observes; default: as its small network was trained, if it has one")
    option("--instruction", type=Path, metavar="FILE", help="file.npy with the vectors of an instruction, for a policy that was trained with some")
    option("--noise", type=float, default=0.0, metavar="X", help="noise on the state, in its standard deviations, of which none counts as below 0.02; default: 0")
    option("--dynamics", type=float, default=1.0, metavar="X", help="factor of the dynamics; default: 1")
    option("--push", type=float, default=0.0, metavar="X", help="strength of a push in mid-episode; default: 0")
    option("--fault", choices=("drop", "block"), metavar="fault", help="drop: the object is dropped; block: actions have no effect for a while")
    option("--at", type=float, default=0.5, metavar="X", help="time of push or fault, as a share of an expert's episode; default: 0.5")


# Demonstrations and training


def _demos(options: argparse.Namespace) -> int:
    if options.out.exists():
        raise checks.refusal("--out", str(options.out), "exists already", "choose another place", UsageError)
    _check_place(options.out, options.out.parent)
    from ebwm.policy.demonstrations import collect
    from ebwm.policy.formats import HDF5, write_demonstrations
    from ebwm.policy.simulators import make_simulator

    if options.out.suffix not in HDF5 and (remedy := checks.suggestion(options.out.suffix, HDF5)):
        raise checks.refusal("--out", str(options.out), "must end in .hdf5 or .h5, or be a folder", remedy, UsageError)
    packages = ["h5py"] if options.out.suffix in HDF5 else ["pyarrow", "av"] if options.image else ["pyarrow"]
    for package in packages:  # missing ones are named before episodes are recorded
        require(package, "policy")
    with _usage():
        simulator = make_simulator(options.simulator)
        layout = dict(simulator.layout)
        simulator.close()
        made = collect(options.simulator, options.episodes, options.seed, options.style, options.workers, options.image)
        write_demonstrations(options.out, made, layout)
    steps = sum(len(episode.actions) for episode in made.episodes)
    print(f"{options.out}: {len(made.episodes)} episodes of {made.simulator} with {steps} steps, "
          f"{made.failed} others failed; digest {made.digest[:16]}")
    return 0


def _train(options: argparse.Namespace) -> int:
    folder, changes = _new_folder(options.out), _settings(options.settings)
    for name in changes.keys() & {"kind", "preset"}:
        remedy = "give the kind as the first word, and the preset as --preset NAME"
        raise checks.refusal("KEY=VALUE", f"{name}={changes[name]}", "is not a setting", remedy, UsageError)
    reading = {"mask": options.mask, "camera": options.camera, "bounded": not options.unbounded}
    from tqdm import tqdm

    from ebwm.policy.formats import read_demonstrations
    from ebwm.policy.policies import PolicySettings
    from ebwm.policy.training import train_policy
    from ebwm.training.checkpoint import locked

    with _usage():
        chosen = PolicySettings.named(options.kind, options.preset, **changes)
        demonstrations = read_demonstrations(options.demos, **reading)
    with tqdm(total=chosen.updates, disable=not sys.stderr.isatty(), unit="update") as bar:
        try:
            with locked(folder / TRAINING), _usage():
                note = lambda row: bar.update(row["update"] - bar.n)
                train_policy(demonstrations, folder, chosen, options.seed, note, reading)
        except FloatingPointError as error:
            raise Failure(str(error)) from error
    print(f"{folder}\nNext: ebwm policy evaluate {folder}")
    return 0


def _new_folder(word: str) -> Path:
    """A folder by its path, or by its name in the folder of runs; it may hold an interrupted training."""
    folder = Path(word) if len(Path(word).parts) > 1 else settings.load().runs / word
    _check_place(folder, folder)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if FILE in names or (names and TRAINING not in names):
        raise checks.refusal("--out", str(folder), "exists already", "choose another name", UsageError)
    return folder


def _check_place(out: Path, folder: Path) -> None:
    """Refuse a place to write whose folder cannot be made or written."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        rule = f"{existing} " + ("cannot be written" if existing.is_dir() else "is a file, not a folder")
        raise checks.refusal("--out", str(out), rule, "choose another place", UsageError)


def _settings(words: list[str]) -> dict[str, Any]:
    """Settings from KEY=VALUE: values are JSON, or else words."""
    found = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not (name and sign):
            raise checks.refusal("KEY=VALUE", word, "must be a setting, as in steps=2", error=UsageError)
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


@contextmanager
def _usage() -> Iterator[None]:
    """Report wrong values in one line."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, UsageError) or "\n" in str(error) else UsageError(str(error)) from error


# Evaluation


def find_policy(
    word: str,  # folder of a policy, or its name in the folder of runs
) -> Path:
    """The folder of a policy."""
    runs = settings.load().runs
    for folder in (Path(word), runs / word):
        if (folder / FILE).is_file():
            return folder
    existing = [path.parent.name for path in sorted(runs.glob(f"*/{FILE}"))]
    rule = f"must be the folder of a policy, or a policy in {runs}: {', '.join(existing) or 'none'}"
    remedy = checks.suggestion(word, existing) or "train one: ebwm policy train"
    raise checks.refusal("RUN", word, rule, remedy, UsageError)


def _policy(options: argparse.Namespace) -> tuple[Path, "Policy", str, dict[str, Any], dict[str, Any]]:
    """Folder of the policy, the policy, name of the simulator and its options, and settings to change; all checked."""
    folder, changes = find_policy(options.name), _settings(options.settings)
    from ebwm.policy.policies import load_policy

    instruction = None if options.instruction is None else _vectors(options.instruction)
    with _usage():
        policy = load_policy(folder, instruction, **changes)
        simulator = options.simulator or json.loads((folder / FILE).read_text(encoding="utf-8"))["simulator"]
    image = options.image or policy.predictor.model.shape.image
    return folder, policy, simulator, {"image": image} if image else {}, changes


def _vectors(path: Path) -> "Tensor":
    """The vectors of an instruction, [vectors features], or one of them."""
    import numpy as np
    import torch

    from ebwm.policy.reading import Source

    source = Source(path, name="--instruction")
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise source.unreadable(error) from None
    return torch.from_numpy(source.instruction("the file", array))


def _disturbance(options: argparse.Namespace) -> "Disturbance":
    from ebwm.policy.simulators import Disturbance

    return Disturbance(options.noise, options.dynamics, options.push, options.fault, options.at)


def _evaluate(options: argparse.Namespace) -> int:
    folder, policy, simulator, made, changes = _policy(options)
    from ebwm.policy.evaluation import evaluate_policy, evaluation_seeds, summarise
    from ebwm.policy.policies import load_policy
    from ebwm.policy.simulators import make_simulator

    disturbance = _disturbance(options)
    named = changes | ({} if options.instruction is None else {"instruction": options.instruction.stem})
    place = options.out or folder / EVALUATIONS / _name_of(disturbance, named, simulator, options.batch)
    if not place.is_dir():
        _check_place(place, place)
    with _usage():
        if options.simulator:
            with closing(make_simulator(simulator)) as one:
                _check_sizes(policy, one)
        results = evaluate_policy(
            partial(load_policy, folder, policy.instruction, **changes), simulator, options.seeds or evaluation_seeds(options.episodes),
            disturbance=disturbance, workers=options.workers, batch=options.batch, folder=place, options=made,
            report=_report)
    print(f"{folder}: {summarise(results)}\nEpisodes: {place}")
    for message, times in Counter(result.message for result in results if result.message).most_common():
        print(f"ebwm: {times} episodes ended by: {message}", file=sys.stderr)
    return FAILED if all(result.message for result in results) else 0


def _check_sizes(policy: "Policy", simulator: "Simulator") -> None:
    """Refuse a simulator whose states or actions have other sizes than those of the policy."""
    shape = policy.model.shape
    names = ["action_dim", *["state_dim"] * bool(shape.state_dim and policy.encoder is None)]
    for name in names:
        if (size := getattr(simulator, name)) != (known := getattr(shape, name)):
            rule = f"has {name}={size}, but the policy was trained with {known}"
            remedy = "choose a simulator like that of its demonstrations"
            raise checks.refusal("--simulator", simulator.name, rule, remedy, UsageError)


def _name_of(disturbance: "Disturbance", changes: dict[str, Any], simulator: str, batch: int) -> str:
    """A name for an evaluation: what differs from the default."""
    usual = type(disturbance)()
    differ = {name: value for name, value in vars(disturbance).items() if value != getattr(usual, name)}
    parts = [f"{name}={value}" for name, value in {**changes, **differ}.items()]
    return "_".join([simulator.replace(":", "-"), *parts, *[f"batch={batch}"] * (batch > 1)]).replace("/", "-")


def _report(result: "EpisodeResult") -> None:
    if sys.stderr.isatty():
        print(f"seed {result.seed}: {result.outcome} after {result.steps} steps", file=sys.stderr)


def _play(options: argparse.Namespace) -> int:
    _, policy, name, made, _ = _policy(options)
    _check_place(options.out, options.out.parent)
    import torch

    from ebwm.policy.evaluation import FIRST_SEED
    from ebwm.policy.film import film_episode
    from ebwm.policy.simulators import make_simulator

    torch.set_num_threads(1)  # as in evaluations, so that the episode of a seed is the same to the last bit
    disturbance = _disturbance(options)
    seed = FIRST_SEED if options.seed is None else options.seed
    with _usage():
        simulator = make_simulator(name, **made)
        _check_sizes(policy, simulator)
        result = film_episode(policy, simulator, seed, options.out, disturbance, options.size)
    simulator.close()
    reason = f" ({result.message})" if result.message else ""
    print(f"{options.out}: seed {seed}, {result.outcome} after {result.steps} steps{reason}")
    return 0


def _list(options: argparse.Namespace) -> int:
    runs = settings.load().runs
    rows = [row for path in sorted(runs.glob(f"*/{FILE}")) for row in _rows(path)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print("\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
          or f"no policies in {runs}; train one: ebwm policy train")
    return 0


def _rows(path: Path) -> list[tuple[str, str, str, str]]:
    """A policy and its evaluations: name, kind, evaluation, scores."""
    from ebwm.policy.evaluation import EPISODES, read_episodes, summarise

    values = json.loads(path.read_text(encoding="utf-8"))
    found = [(file.parent.name, read_episodes(file)[1]) for file in sorted(path.parent.glob(f"{EVALUATIONS}/*/{EPISODES}"))]
    scores = [(name, str(summarise(episodes))) for name, episodes in found if episodes]
    kind = f"{values['settings']['kind']} on {values['simulator']}"
    return [(path.parent.name, kind, *score) for score in scores or [("", "not evaluated")]]
