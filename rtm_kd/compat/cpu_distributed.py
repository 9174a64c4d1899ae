"""Distributed training on a machine without an accelerator.

For: mmengine <= 0.10.7, on machines where ``torch.cuda.is_available()`` is False.
Fault: ``init_dist('pytorch')`` calls ``torch.cuda.set_device`` and asks for NCCL, and
``Runner.wrap_model`` passes ``device_ids``, which DDP refuses for a module on the CPU.
SyncBN is refused there as well, by DDP and by torch's own layer. Nothing destroys the process
group, whose threads abort a process (SIGABRT) that ends while they wait for the others.
Here: without CUDA the process group is gloo's and destroyed when Python exits, DDP gets no
``device_ids`` for a module on the CPU, and SyncBN is computed there too. With CUDA nothing is
changed.
Can go: when MMEngine does the same, and torch has SyncBN on a CPU.
"""

import atexit
import functools

import mmengine.dist.utils as dist_utils
import torch
import torch.distributed as torch_dist
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.model.utils import _BatchNormXd


def _init_gloo(backend, init_backend='torch', **kwargs) -> None:
    torch_dist.init_process_group(backend='gloo', **kwargs)
    atexit.register(_destroy_group)


def _destroy_group() -> None:
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()


class _SyncedNormalize(torch.autograd.Function):
    """Zero mean and unit variance per channel over the batches of all processes."""

    @staticmethod
    def forward(ctx, input, eps):
        dims = [0, *range(2, input.dim())]
        # In float64 a variance survives being the difference of two large numbers.
        sums = [power.sum(dims, dtype=torch.float64) for power in (input, input.square())]
        stats = torch.cat([*sums, sums[0].new_tensor([input.numel() / input.size(1)])])
        torch_dist.all_reduce(stats)
        count = stats[-1]
        mean, square = (stats[:-1] / count).chunk(2)
        var = (square - mean.square()).clamp_(min=0)
        shift, scale = (
            _along_channels(value.to(input.dtype), input) for value in (mean, (var + eps).rsqrt())
        )
        output = (input - shift) * scale
        ctx.save_for_backward(output, scale, count)
        ctx.dims = dims
        var = var * (count / (count - 1))
        ctx.mark_non_differentiable(mean, var)
        return output, mean, var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient, *_):
        output, scale, count = ctx.saved_tensors
        stats = torch.stack([gradient.sum(ctx.dims), (gradient * output).sum(ctx.dims)])
        torch_dist.all_reduce(stats)
        mean, correlation = (
            _along_channels(value, gradient) for value in (stats / count).to(gradient.dtype)
        )
        return (gradient - mean - output * correlation) * scale, None


class _SyncBatchNorm(_BatchNormXd):
    """SyncBN on a CPU. In evaluation it is BN, as torch's own is."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        output, mean, var = _SyncedNormalize.apply(wide, self.eps)
        if self.track_running_stats:
            self.num_batches_tracked += 1
            momentum = self.momentum
            if momentum is None:
                momentum = 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(var.to(self.running_var.dtype), momentum)
        if self.affine:
            weight, bias = (_along_channels(value, output) for value in (self.weight, self.bias))
            output = output * weight + bias
        return output.to(input.dtype)


def _along_channels(values: torch.Tensor, input: torch.Tensor) -> torch.Tensor:
    return values.view(1, -1, *[1] * (input.dim() - 2))


def _with_sync_bn(module: torch.nn.Module) -> torch.nn.Module:
    # MMEngine turns every kind of SyncBN into this class, and nothing else into it.
    module = revert_sync_batchnorm(module)
    for part in module.modules():
        if type(part) is _BatchNormXd:
            part.__class__ = _SyncBatchNorm
    return module


def applies() -> bool:
    return not any(
        (
            torch.cuda.is_available(),
            dist_utils.is_mlu_available(),
            dist_utils.is_npu_available(),
            dist_utils.is_musa_available(),
        )
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

    MMDistributedDataParallel.__init__ = init
