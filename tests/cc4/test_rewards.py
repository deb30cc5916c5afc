"""The team reward: `BlueRewardMachine.py:calculate_reward`, and the cost of `SimulationController.py:step`."""

import numpy as np
import pytest
from worlds import CON, OFF, OZA, RZA, RZB, World, blue_of, run, server, user

from purecc4.envs.cc4.constants import BLUE_DURATION, BlueAction, GreenAction, RedAction

TABLE = {  # zone: (LWF, ASF, RIA) by phase
    0: ((0, -5, -5), (0, 0, 0), (0, 0, 0)),
    1: ((-1, -3, -1), (-2, -1, -3), (-1, -3, -3)),
    2: ((-1, -1, -1), (-10, 0, -10), (-1, -1, -1)),
    3: ((-1, -3, -1), (-1, -1, -1), (-2, -1, -3)),
    4: ((-1, -1, -1), (-1, -1, -1), (-10, 0, -10)),
    **dict.fromkeys((5, 6, 7), ((-1, -1, -3),) * 3),
}
STARTS = (0, 167, 334)


def parts(after):
    rewards = after.info.rewards
    found = tuple(float(x) for x in (rewards.lwf, rewards.asf, rewards.ria, rewards.cost))
    assert after.reward == sum(found)
    return found


def failing_work(zone, step):
    world = World(step=step)
    world.wear(user(zone), 0)
    world.green_does(user(zone), GreenAction.LOCAL_WORK)
    return world


def failing_access(zone, step):
    world = World(step=step)
    away = RZA if zone != RZA else RZB
    world.block(away, zone)
    world.green_does(user(zone), GreenAction.ACCESS_SERVICE, server(away))
    return world


def impact(zone, step):
    """It fails: the agent is not root there."""
    agent = min(zone, 5)
    world = World(step=step)
    world.session(agent, server(zone), id=1 if agent == 0 else 0)
    world.red_does(agent, RedAction.IMPACT, server(zone))
    return world


@pytest.mark.parametrize(("term", "make"), [(0, failing_work), (1, failing_access), (2, impact)])
def test_the_whole_table(term, make):
    """Charges depend on the zone of the user whose work or access fails, and of the target of an Impact."""
    cases = [(zone, phase) for zone in TABLE for phase in range(3)]
    results = run([make(zone, STARTS[phase]) for zone, phase in cases])
    for (zone, phase), after in zip(cases, results, strict=True):
        expected = [0.0] * 4
        expected[term] = TABLE[zone][phase][term]
        assert parts(after) == tuple(expected), (zone, phase)


def test_failures_add_up():
    world = failing_work(OZA, 167)
    for host in (user(OZA, 1), user(RZA)):
        world.wear(host, 0)
        world.green_does(host, GreenAction.LOCAL_WORK)
    world.session(2, server(OZA))
    world.red_does(2, RedAction.IMPACT, server(OZA))
    world.blue_submits(0, BlueAction.RESTORE, server(RZA))
    world.blue_submits(4, BlueAction.RESTORE, server(OFF))
    assert parts(world.step()) == (-22, 0, -10, -2)


@pytest.mark.parametrize(("before", "after"), [(166, 167), (333, 334)])
def test_phases_change_with_the_step_about_to_be_played(before, after):
    rewards = [parts(result)[0] for result in run([failing_work(OZA, before), failing_work(OZA, after)])]
    assert rewards == ([-1, -10] if after == 167 else [-10, -1])


def test_impacts_are_charged_whether_they_work_fail_or_are_dropped_q2():
    works, fails, dropped, extinct = (impact(OZA, 0) for _ in range(4))
    works.session(2, server(OZA), root=True)
    for world in (dropped, extinct):
        world.red_does(2, RedAction.IMPACT, server(OZA), session=9)
    extinct.lose(2)
    results = run([works, fails, dropped, extinct])
    assert [parts(after)[2] for after in results] == [-1, -1, -1, 0], "but only of agents with a session (Q2)"
    assert [after.ot_stopped(server(OZA)) for after in results] == [True, False, False, False]


def test_an_impact_whose_last_session_blue_takes_in_the_same_step_is_free():
    world = impact(OZA, 0)
    world.blue_does(BlueAction.RESTORE, server(OZA))
    assert parts(world.step())[2] == 0


def test_an_impact_in_progress_is_not_charged_yet():
    world = impact(OZA, 0)
    world.state.red.queue.ticks[2] = 2
    assert parts(world.step())[2] == 0


def test_restore_is_charged_per_submission_even_to_the_busy_q1():
    world = World()
    world.blue_submits(0, BlueAction.RESTORE, server(RZA))
    costs = []
    for _ in range(7):
        after = world.step()
        costs.append(parts(after)[3])
        world.state = after.state
    assert costs == [-1] * 7


def test_waiting_for_a_restore_costs_nothing():
    world = World()
    world.blue_does(BlueAction.RESTORE, server(RZA), ticks=3)
    assert parts(world.step())[3] == 0


@pytest.mark.parametrize("kind", [kind for kind in BlueAction if kind != BlueAction.RESTORE])
def test_nothing_else_costs(kind):
    world = World()
    host = server(RZA)
    if kind in (BlueAction.ALLOW_TRAFFIC_ZONE, BlueAction.BLOCK_TRAFFIC_ZONE):
        world.blue_submits(0, kind, to=RZA, source=CON)
    elif kind in (BlueAction.SLEEP, BlueAction.MONITOR):
        world.blue_submits(0, kind)
    else:
        world.blue_submits(blue_of(host), kind, host)
    assert world.step().reward == 0 and BLUE_DURATION[kind] <= 5


@pytest.mark.parametrize(
    "kind", [RedAction.EXPLOIT_REMOTE_SERVICE, RedAction.PRIVILEGE_ESCALATE, RedAction.DEGRADE_SERVICES]
)
def test_nothing_else_that_red_does_counts(kind):
    world = World()
    world.session(2, server(OZA), root=kind == RedAction.DEGRADE_SERVICES)
    world.remember(2, server(OZA), 0)
    world.red_does(2, kind, server(OZA))
    assert world.step().reward == 0


def test_tables_and_costs_are_the_scenarios():
    rewards = np.zeros((3, 9, 3), np.float32)
    rewards[0, OZA] = -2, -3, -4
    world = World(rewards=rewards, restore_cost=0.5)
    world.wear(user(OZA), 0)
    world.green_does(user(OZA), GreenAction.LOCAL_WORK)
    world.blue_submits(1, BlueAction.RESTORE, server(OZA))
    assert parts(world.step()) == (-2, 0, 0, -0.5)
