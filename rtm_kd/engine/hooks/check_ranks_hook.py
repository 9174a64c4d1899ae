"""A check that all ranks of a distributed run start alike."""

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.nn.parallel import DistributedDataParallel

from rtm_kd.registry import HOOKS
from rtm_kd.utils.errors import UsageError

# Size of a weight in bytes -> integers of that size.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_REMEDY = (
    'every machine has to read the same checkpoint: put it on a shared disk, or a copy on each'
)


@HOOKS.register_module()
class CheckRanksHook(Hook):
    """Abort a distributed run whose ranks loaded different weights.

    Each rank reads checkpoints, only the first one writes them, and DDP averages the gradients of
    different weights silently. With a work dir on a disk that the machines do not share,
    ``--resume`` would resume on one of them and start from scratch on the others.
    """

    # After everything else that prepares the model.
    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        """Compare position and weights.

        Raises:
            ValueError: On all ranks, naming the first one that differs from rank 0.
        """
        if not isinstance(runner.model, DistributedDataParallel):
            return  # one process, or each has a part of the weights
        names, weights = zip(*runner.model.module.named_parameters())
        # Sums of the bits, which are exact on every machine.
        sums = [weight.detach().view(_INTEGERS[weight.element_size()]).sum() for weight in weights]
        position = sums[0].new_tensor([runner.epoch, runner.iter])
        first, *others = dist.all_gather(torch.cat([position, torch.stack(sums)]))
        for rank, other in enumerate(others, start=1):
            if not torch.equal(other[:2], first[:2]):
                raise UsageError(
                    f'process {rank} is at epoch {other[0]}, iteration {other[1]}, and process 0 '
                    f'at epoch {first[0]}, iteration {first[1]}; {_REMEDY}'
                )
            if not torch.equal(other, first):
                name = names[int((other != first).nonzero()[0]) - 2]
                raise UsageError(
                    f'process {rank} has other weights than process 0, first in {name}; {_REMEDY}'
                )
