"""`ebwm play`: sessions of a game and a model, the page and its server, and small models."""

import http.client
import io
import json
import re
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebwm import cli
from ebwm.data.games import as_states, make_game
from ebwm.data.task import Vectors, state_errors
from ebwm.explore import play
from ebwm.explore.play_page import HOST, page, serve
from ebwm.training.learner import Learner
from ebwm.training.run import Stopped
from ebwm.usage import UsageError

STAY, UP, DOWN, LEFT, RIGHT = range(5)


def player(offset=0.0, window=4):
    """The game push:5 and a model that knows its rules: it plays along in a game of its own, with a constant error."""
    game, copy = make_game("push:5"), make_game("push:5")
    seen = []

    def predict(context, noise):
        seen.append(context)
        return as_states(copy.step(int(context[1][0, -1].argmax())).frame)[None, None] + offset

    learner = Learner(torch.nn.Module(), None, predict, errors=state_errors)
    decode = lambda states: (255 * states.clamp(0, 1)).round().byte().numpy().reshape(-1, 5, 5, 3)
    made = play.Player(game, learner, as_states, decode, torch.eye(5), window)
    return made, copy, seen


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small model of push:5 after two updates."""
    return play.train_small("push:5", tmp_path_factory.mktemp("runs"), updates=2, progress=False)


def test_a_small_model_of_large_frames_has_latent_candidates_and_energies(tmp_path, monkeypatch):
    monkeypatch.setattr(play, "LARGE", 10)
    monkeypatch.setattr(play, "COMPRESSED", ("data.encoder=pixels", "data.size=none", "data.train_episodes=32",
                                             "data.eval_episodes=4", "model.dim=32", "model.candidates=latent"))
    session = play.Session(play.open_run(play.train_small("push:5", tmp_path, updates=1, progress=False)))
    shown = session.press(UP)
    assert shown.energy is not None and shown.own_energy is not None and shown.predicted.shape == (5, 5, 3)


def test_a_session_shows_the_game_and_a_prediction_of_each_action():
    made, copy, seen = player(0.1)
    session = play.Session(made, seed=3)
    assert (session.shown.real == copy.reset(3)).all() and session.shown.error is None
    for action in (UP, LEFT, STAY, RIGHT, DOWN, UP):
        shown = session.press(action)
        assert (shown.real == made.game.frame()).all() and shown.error == pytest.approx(0.005, abs=1e-4)
        assert shown.energy is None and (shown.predicted >= shown.real).all()
    assert [len(context[0][0]) for context in seen] == [1, 2, 3, 4, 4, 4] and len(session.history) == 6
    assert seen[-1][1][0].argmax(-1).tolist() == [STAY, RIGHT, DOWN, UP]
    with pytest.raises(UsageError, match="action=5: must be from 0 to 4"):
        session.press(5)


@pytest.mark.parametrize("mode", play.MODES)
def test_a_model_tracks_true_frames_and_dreams_from_its_own(mode):
    made, copy, seen = player(0.2)
    session = play.Session(made, seed=1, mode=mode)
    copy.reset(1)
    shown = [session.press(action).predicted for action in (UP, RIGHT)]
    session.press(DOWN)
    fed = made.decode(seen[-1][0][0, -2:])
    assert (fed == np.stack(shown)).all() == (mode == "dream")
    session.set_mode("track")
    session.set_mode("dream")
    session.press(LEFT)
    assert (seen[-1][0][0] == session.real[:4]).all(), "a dream begins from the true frames"


def test_impossible_events_and_ends_of_games():
    made, copy, _ = player()
    session = play.Session(made, seed=2)
    copy.reset(2)
    assert session.events == ("teleport", "recolour") and session.press(STAY).error == 0
    assert session.press(STAY, "recolour").error > 0
    session.done = True
    assert session.press(UP).error is None and session.seed == 3 and not session.history
    play.Session(made, seed=4)
    with pytest.raises(UsageError, match="game='push:5': another session of this player has moved it"):
        session.press(UP)


def test_a_trained_model_gives_equal_steps_for_equal_seeds(run):
    steps = []
    for _ in range(2):
        session = play.Session(play.open_run(run), seed=5)
        steps.append([session.press(action) for action in (UP, LEFT, DOWN)])
    for first, second in zip(*steps, strict=True):
        assert first[2:] == second[2:] and (first.predicted == second.predicted).all() and None not in first[2:]
    assert play.small_run("push:5", run.parent) == run and play.small_run("push:7", run.parent) is None


@pytest.mark.parametrize("game, message", [
    ("push:6", r"--game='push:6': has frames of 108 numbers"), ("chess", "game='chess': must be one of push")])
def test_a_game_that_the_model_does_not_know_is_refused(run, game, message):
    with pytest.raises(ValueError, match=message):
        play.open_run(run, game)


@pytest.mark.parametrize("words, message", [
    (["nothing"], "RUN='nothing': must be the folder of a run"), (["--game", "chess"], "game='chess'"),
    (["RUN", "--mode", "sleep"], "mode='sleep': must be one of track, dream"),
    (["RUN", "--port", "USED"], r"--port=\d+: is in use; choose another")])
def test_the_command_refuses_in_one_line(run, words, message, capsys):
    with running(play.Session(play.open_run(run))) as port:
        given = [{"RUN": str(run), "USED": str(port)}.get(word, word) for word in words]
        code = cli.main(["play", *given, "--no-browser"])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1) and re.search(message, error)


@pytest.mark.parametrize("game, symbolic, message", [
    (None, False, None), ("push:7", False, "--game='push:7': has frames that the model cannot show"),
    (None, True, "RUN='run': has symbols for states")])
def test_a_run_of_the_task_game_brings_its_own_encoder(game, symbolic, message, monkeypatch):
    made = player()[0]
    task = SimpleNamespace(state=Vectors(75, 5), encode=as_states,
                           decode=lambda states, shape: np.zeros((len(states), 75), np.uint8).reshape(-1, *shape))
    data = SimpleNamespace(kind="game", game="push:5", size=None, symbolic=symbolic, frames=9)
    monkeypatch.setattr(play, "load_run", lambda folder: (made.learner, task, SimpleNamespace(data=data)))
    if message is None:
        assert play.open_run("run", game).window == 8
        return
    with pytest.raises(UsageError, match=message):
        play.open_run("run", game)


# The page


@contextmanager
def running(session):
    """A server of a session: its port."""
    with serve(session) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port, path, body=None, method="POST", **headers):
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    content = body if isinstance(body, str) else json.dumps(body or {})
    connection.request(method, path, content, {"Content-Type": "application/json"} | headers)
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def test_the_server_answers_its_page_and_refuses_others():
    made, copy, _ = player()
    with running(play.Session(made)) as port:
        copy.reset(0)
        state = json.loads(ask(port, "/state")[1])
        assert [entry["key"] for entry in state["keys"]] == [" ", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]
        after = json.loads(ask(port, "/press", {"action": UP})[1])
        assert (after["step"], after["action"], after["error"]) == (1, "up", 0) and len(after["history"]) == 1
        assert json.loads(ask(port, "/mode", {"mode": "dream"})[1])["mode"] == "dream"
        assert json.loads(ask(port, "/reset", {"seed": 7})[1])["seed"] == 7
        for path, body in (("/press", {"action": 9}), ("/press", {"action": "up"}), ("/press", {}), ("/no", {}),
                           ("/mode", {"mode": "x"}), ("/reset", {"seed": -1}), ("/press", "["), ("/press", "3")):
            status, text = ask(port, path, body)
            assert status == 400 and json.loads(text)["error"], (path, body)
        assert json.loads(ask(port, "/state")[1])["step"] == 0, "a refused request changes nothing"
        assert ask(port, "/", method="GET") == (200, page()) and ask(port, "/x", method="GET")[0] == 404
        assert ask(port, "/press", {"action": UP}, **{"Content-Type": "text/plain"})[0] == 403
        assert ask(port, "/press", {"action": UP}, Host="evil.example")[0] == 403


def test_the_page_needs_no_other_resource_and_pictures_are_valid():
    assert not re.findall(r"(?:src|href)=\"(?!data:)|@import|https?:", page())
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed")
    frame = make_game("push:5").reset(0)
    decoded = image.imread(io.BytesIO(play.png(frame)), format="png")
    assert (np.round(255 * decoded[..., :3]) == frame).all()


def test_the_widget_answers_as_the_page_does():
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'ebwm[figures]'")
    from ebwm.explore.play_widget import play_widget

    made, copy, _ = player()
    copy.reset(0)
    widget, sent = play_widget(play.Session(made)), []
    widget.send = sent.append
    for id, (path, body) in enumerate([("press", {"action": UP}), ("press", {"action": 9})]):
        widget._handle_custom_msg(dict(id=id, path=path, body=body), [])
    assert [(message["id"], message["code"]) for message in sent] == [(0, 200), (1, 400)]
    assert sent[0]["body"]["step"] == 1 and widget.latest["step"] == 1


def test_keys_are_unique():
    names = [entry["key"] for entry in play.keys_of(("noop", "fire", "up", "forward", "upright", "stay"))]
    assert names == ["1", " ", "ArrowUp", "4", "5", "6"]
    many = [entry["key"] for entry in play.keys_of(tuple(map(str, range(18))))]  # as many as an Atari game has
    assert many[8:11] == ["9", "a", "b"] and len({*many}) == 18 and all(len(key) == 1 for key in many)


def test_an_interruption_while_the_small_model_is_trained_is_told_in_one_line(tmp_path, monkeypatch, capsys):
    def stopped(*given, **options):
        raise Stopped("SIGTERM: stopped after update 1 of 9", "SIGTERM")

    monkeypatch.setenv("EBWM_RUNS", str(tmp_path))
    monkeypatch.setattr(play, "train_small", stopped)
    assert cli.main(["play", "--no-browser"]) == 130
    told, interrupted = capsys.readouterr().err.splitlines()
    assert told.startswith(f"push:5: no small model in {tmp_path} yet") and interrupted == "ebwm: interrupted"
