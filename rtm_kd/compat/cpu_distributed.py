"""Distributed training on a machine without an accelerator.

For: mmengine <= 0.10.7, on machines where ``torch.cuda.is_available()`` is False.
Fault: ``init_dist('pytorch')`` calls ``torch.cuda.set_device`` and asks for NCCL, and
``Runner.wrap_model`` passes ``device_ids``, which DDP refuses for a module on the CPU.
SyncBN, which DDP refuses there as well, MMEngine reverts only where there is one process.
Here: without CUDA the process group is gloo's, DDP gets no ``device_ids`` for a module on
the CPU, and SyncBN becomes BN. With CUDA nothing is changed.
Can go: when MMEngine does the same.
"""

import functools

import mmengine.dist.utils as dist_utils
import torch
import torch.distributed as torch_dist
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm


def _init_gloo(backend, init_backend='torch', **kwargs) -> None:
    torch_dist.init_process_group(backend='gloo', **kwargs)


def enable() -> None:
    if torch.cuda.is_available() or dist_utils._init_dist_pytorch is _init_gloo:
        return
    if any(
        (
            dist_utils.is_mlu_available(),
            dist_utils.is_npu_available(),
            dist_utils.is_musa_available(),
        )
    ):
        return
    dist_utils._init_dist_pytorch = _init_gloo

    original = MMDistributedDataParallel.__init__

    @functools.wraps(original)
    def init(self, module, *args, **kwargs):
        if all(parameter.device.type == 'cpu' for parameter in module.parameters()):
            kwargs.pop('device_ids', None)
            module = revert_sync_batchnorm(module)
        original(self, module, *args, **kwargs)

    MMDistributedDataParallel.__init__ = init
