"""Diagnostics of hand-made walks with known answers."""

import pytest
import torch

from ebwm.diagnostics import Trace, acceptance_rate, alarms, energy_trace, health
from ebwm.energy import DoubleWell
from ebwm.sampler import gradient_descent, mala, run
from ebwm.settings import generator


def test_a_trace_stores_every_nth_candidate_after_the_burn_in():
    trace = Trace(every=3, burn_in=2)
    run(lambda y: -y.sum(-1), torch.zeros(1, 1), gradient_descent(1.0), 10, callback=trace)
    assert trace.places.flatten().tolist() == [3, 6, 9]


def test_traces_and_acceptance_are_those_of_the_steps():
    start, everything = torch.randn(5, 2, generator=generator(0)), Trace()
    result = run(DoubleWell(), start, mala(0.5), 8, generator(1), callback=everything)
    moved = (torch.cat([start[None], everything.places]).diff(dim=0) != 0).any(-1)
    assert torch.equal(acceptance_rate(result), moved.float().mean(0))
    energies = DoubleWell()(torch.cat([start[None], everything.places]))
    torch.testing.assert_close(energy_trace(result), energies)


def walks(energies, norms):
    """A result of two steps with given energies [3 items] and lengths of the gradients [2 items]."""
    result = run(DoubleWell(), torch.zeros(len(energies[0]), 2), gradient_descent(0.0), 2)
    info = result.info._replace(energy=torch.tensor(energies[:2]), grad_norm=torch.tensor(norms))
    return result._replace(info=info, state=result.state._replace(energy=torch.tensor(energies[2])))


def test_health_counts_rising_exploding_and_non_finite_items():
    nan = float("nan")
    energies = [[1.0, 2.0, 3.0, 5.0], [0.0, 0.0, 0.0, 0.0], [0.5, 4.0, 1.0, nan]]
    found = health(walks(energies, [[1.0] * 4, [11.0, 1.0, 9.0, 1.0]]))
    assert found[:4] == (0.25, 0.25, 0.25, 0.5) and found.scale == pytest.approx(1.0)
    assert len(alarms(found)) == 2 and len(alarms(found, exploding=0.3)) == 1
    assert alarms(health(walks([[1.0, 2.0]] * 3, [[1.0, 1.0]] * 2))) == [
        "the energy falls by 0, starts differ by 0.707: the landscape is flat"]
