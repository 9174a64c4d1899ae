"""Distributed training on a machine without an accelerator.

For: mmengine <= 0.10.7, on machines where ``torch.cuda.is_available()`` is False.
Fault: ``init_dist('pytorch')`` calls ``torch.cuda.set_device`` and asks for NCCL, and
``Runner.wrap_model`` passes ``device_ids``, which DDP refuses for a module on the CPU.
DDP and torch's own layer refuse SyncBN there as well. Nothing ends the threads of the process
group, which abort a process (SIGABRT) that ends before they do.
Here: the process group is gloo's, and its threads end when Python exits; DDP gets no
``device_ids`` for a module on the CPU, and SyncBN is computed there too.
Can go: when MMEngine does the same, and torch has SyncBN on a CPU.
"""

import atexit
import functools
import weakref

import mmengine.dist.utils as dist_utils
import torch
import torch.distributed as torch_dist
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.model.utils import _BatchNormXd

_wrapped = weakref.WeakSet()


def _init_gloo(backend, init_backend='torch', **kwargs) -> None:
    torch_dist.init_process_group(backend='gloo', **kwargs)
    atexit.register(_destroy_group)


def _destroy_group() -> None:
    # These parts of DDP would keep the group alive.
    for model in _wrapped:
        for name in ('reducer', 'logger', 'process_group'):
            vars(model).pop(name, None)
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()


class _AllReduce(torch.autograd.Function):
    """Sum over the processes, and of the gradients in the backward pass."""

    @staticmethod
    def forward(ctx, values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        torch_dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return _AllReduce.apply(grad)


class _SyncBatchNorm(_BatchNormXd):
    """SyncBN on a CPU. In evaluation it is BN, as torch's own is."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [0, *range(2, input.dim())]

        def along_channels(values: torch.Tensor) -> torch.Tensor:
            return values.to(wide.dtype).view(1, -1, *[1] * (input.dim() - 2))

        # In float64, since a process may have any share of the pixels.
        sums = wide.sum(dims, dtype=torch.float64)
        sums = _AllReduce.apply(torch.cat([sums, sums.new_tensor([input.numel() / input.size(1)])]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - along_channels(mean)
        var = _AllReduce.apply(centred.square().sum(dims, dtype=torch.float64)) / count
        output = centred * along_channels((var + self.eps).rsqrt())
        if self.track_running_stats:
            self.num_batches_tracked += 1
            momentum = self.momentum
            if momentum is None:
                momentum = 1 / float(self.num_batches_tracked)
            unbiased = var.detach() * (count / (count - 1))
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        if self.affine:
            output = output * along_channels(self.weight) + along_channels(self.bias)
        return output.to(input.dtype)


def _with_sync_bn(module: torch.nn.Module) -> torch.nn.Module:
    # MMEngine turns every kind of SyncBN into this class, and nothing else.
    module = revert_sync_batchnorm(module)
    for part in module.modules():
        if type(part) is _BatchNormXd:
            part.__class__ = _SyncBatchNorm
    return module


def applies() -> bool:
    return not (
        torch.cuda.is_available()
        or dist_utils.is_mlu_available()
        or dist_utils.is_npu_available()
        or dist_utils.is_musa_available()
    )


def enable() -> None:
    dist_utils._init_dist_pytorch = _init_gloo

    original = MMDistributedDataParallel.__init__

    @functools.wraps(original)
    def init(self, module, *args, **kwargs):
        if all(parameter.device.type == 'cpu' for parameter in module.parameters()):
            kwargs.pop('device_ids', None)
            module = _with_sync_bn(module)
        original(self, module, *args, **kwargs)
        _wrapped.add(self)

    MMDistributedDataParallel.__init__ = init
