"""A corridor of one dimension and a policy that walks along it, for tests of evaluations in several processes."""

import os
import signal
from collections import deque

import numpy as np
import torch

from ebwm.policy.simulators import Simulator, Step


class Corridor(Simulator):
    """Walk to the goal; some seeds end the process, raise an exception, or are missing a package."""

    name, layout, action_dim, limit = "corridor", {"agent": 1, "goal": 1}, 1, 30

    def reset(self, seed, disturbance=None):
        self.seed, self.gain = seed, disturbance.dynamics if disturbance else 1.0
        self.state = np.array([0.0, 0.5 + np.random.default_rng(seed).random()], np.float32)
        return {"state": self.state.copy()}

    def step(self, action):
        if self.seed == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.seed == 14:
            raise RuntimeError("unstable\nsimulation")
        self.state[0] += 0.1 * self.gain * action[0]
        return Step({"state": self.state.copy()}, bool(abs(self.state[1] - self.state[0]) < 0.06))

    def picture(self, size=256):
        picture = np.zeros((size, size, 3), np.uint8)
        picture[:, int(min(self.state[0], 1.4) / 1.5 * size)] = 255
        return picture


class Walker:
    """Walk towards the goal with a noisy pace, two steps at a time; a bad one has no finite energy."""

    observe, predict, execute, state_std = 1, 4, 2, (1.0, 0.5)

    def __init__(self, pace=1.0, bad=()):
        self.pace, self.bad = pace, bad
        self.reset()

    def reset(self, generator=None):
        self.generator, self.queue, self.facts = generator, deque(), []

    def predict_action_chunk(self, observation):
        state = observation["state"]
        if self.bad and float(state[0, 1]) > self.bad:
            raise FloatingPointError("energy=nan: must be finite")
        noise = torch.rand(len(state), self.execute, 1, generator=self.generator)
        energy = float((state[:, 1] - state[:, 0]).abs().mean())
        self.facts.append({"steps": 2, "evaluations": 3, "energy": energy, "seconds": 0.001})
        return self.pace * (0.5 + 0.5 * noise) * (state[:, 1:] - state[:, :1]).sign()[:, None]

    def select_action(self, observation):
        if not self.queue:
            self.queue.extend(self.predict_action_chunk(observation).unbind(1))
        return self.queue.popleft()


def missing():
    """A simulator whose package is not installed."""
    raise ImportError("'robots' cannot be imported (no module): pip install 'ebwm[policy]'")
