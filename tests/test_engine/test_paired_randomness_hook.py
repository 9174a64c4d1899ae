"""Two runs of one seed get the same random numbers, although one draws more."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rtm_kd.comparison.sides import paired_configs
from rtm_kd.engine.hooks import PairedRandomnessHook
from rtm_kd.utils import load_config


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def numbers(seed, more, start=0, iterations=4, epoch=2):
    """Numbers drawn for the weights and in each iteration, with ``more`` extra draws."""
    hook, runner = PairedRandomnessHook(), SimpleNamespace(seed=seed, iter=start)
    for generator in (random.seed, np.random.seed, torch.manual_seed):
        generator(123 + more)
    hook.before_run(runner)
    found = {'weights': drawn()}
    for _ in range(more):
        drawn()  # as for a teacher's weights
    for runner.iter in range(start, iterations):
        if runner.iter in (start, epoch):
            hook.before_train_epoch(runner)
        found[runner.iter] = drawn()
        for _ in range(more):
            drawn()  # as in a loss with random masks
        # The loop increments runner.iter only after the hooks.
        hook.after_train_iter(runner, runner.iter % epoch)
    return found


@pytest.mark.parametrize('seed', [0, 7])
def test_runs_of_one_seed_draw_the_same(seed):
    alone = numbers(seed, more=0)
    assert numbers(seed, more=3) == alone
    # Every generator gives different numbers in each iteration.
    for values in zip(*alone.values()):
        assert len(set(values)) == len(alone)


def test_another_seed_draws_other_numbers():
    assert not set(numbers(0, more=0).values()) & set(numbers(1, more=0).values())


def test_a_resumed_run_draws_the_same_numbers_as_an_uninterrupted_one():
    whole, resumed = numbers(0, more=0), numbers(0, more=2, start=2)
    assert {iteration: whole[iteration] for iteration in (2, 3)} == {
        iteration: resumed[iteration] for iteration in (2, 3)
    }


def test_both_sides_of_a_comparison_use_the_hook(kd_config, options):
    for arm in paired_configs(load_config(kd_config, options)).values():
        assert 'rtm_kd.PairedRandomnessHook' in [hook['type'] for hook in arm.custom_hooks]
