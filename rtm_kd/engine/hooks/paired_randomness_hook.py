from typing import Any, Optional

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed

from rtm_kd.registry import HOOKS


@HOOKS.register_module()
class PairedRandomnessHook(Hook):
    """Lets runs of one seed draw the same random numbers, whatever their models are.

    A distillation builds connectors and a teacher, and some of its losses draw masks. All
    random numbers of a process come from the same generators, so without this hook a student
    that is distilled begins with other weights than one that is not, and sees images augmented
    in another way. Here the generators are seeded again before the weights are initialised,
    before each epoch and after each iteration, from the run's seed and the iteration's number.

    Processes that load data are seeded by MMEngine and draw on their own; nothing changes there.
    """

    # After every hook that might draw.
    priority = 'LOWEST'

    def before_run(self, runner: Runner) -> None:
        # The runner initialises the weights right after it, the student's first.
        set_random_seed(runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        _seed(runner.seed, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[dict] = None,
    ) -> None:
        _seed(runner.seed, runner.iter + 1)


def _seed(seed: int, iteration: int) -> None:
    set_random_seed(int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0]))
