"""The same random numbers for runs with and without a teacher."""

from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from rtm_kd.registry import HOOKS


@HOOKS.register_module()
class PairedRandomnessHook(Hook):
    """Let runs of one seed draw the same random numbers, with any model.

    Some losses of distillation draw masks, and algorithms other than ours draw for their connectors
    and teacher: a distilled student would then start from other weights than a plain one, or see
    other augmentations.
    This hook seeds the generators before the weights are initialised, before each epoch and after
    each iteration, from the seed of the run and the number of the iteration.

    MMEngine seeds the processes that load data, which are independent of the model.
    """

    # After every hook that might draw.
    priority = 'LOWEST'

    def before_run(self, runner: Runner) -> None:
        # The runner initialises the weights right after this, the student's first.
        set_random_seed(runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        _seed(runner.seed, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        _seed(runner.seed, runner.iter + 1)


def _seed(seed: int, iteration: int) -> None:
    set_random_seed(int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0]))
