"""Connectors and losses alone."""

import statistics
from collections import defaultdict

import torch
from mmengine.registry import MODELS

from .measure import peak_memory, time_of


def own_share(
    student_channels: int = 96,
    teacher_channels: int = 128,
    size: int = 640,
    batch: int = 32,
    steps: int = 5,
) -> dict[str, dict[str, float]]:
    """Time connectors and losses alone, forward and backward, MMRazor's classes and ours.

    Args:
        student_channels (int): Channels of the student's FPN.
        teacher_channels (int): Channels of the teacher's.
        size (int): Side of the images that the features are of, in pixels.
        batch (int): Images.
        steps (int): Repetitions, interleaved.

    Returns:
        dict: For ``'mmrazor'`` and ``'rtm_kd'`` the median ``'seconds'`` and the peak of
        ``'memory'`` beyond the features themselves, in bytes.
    """
    import mmrazor.models  # noqa: F401, registers what is compared with

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    features = {
        f'fpn{i}': [
            torch.randn(batch, channels, size // stride, size // stride, device=device)
            for channels in (student_channels, teacher_channels)
        ]
        for i, stride in enumerate((8, 16, 32))
    }
    # Each in the memory format in which its models hand them over.
    formats = dict(mmrazor=torch.contiguous_format, rtm_kd=torch.channels_last)
    sides = {}
    norm_cfg = dict(type='BN', affine=False, track_running_stats=False)
    for scope in formats:
        connectors, losses, mappings = {}, {}, {}
        for level in features:
            connectors[f'{level}_s'] = dict(
                type=f'{scope}.ConvModuleConnector',
                in_channel=student_channels,
                out_channel=teacher_channels,
                bias=False,
                norm_cfg=norm_cfg,
                act_cfg=None,
            )
            connectors[f'{level}_t'] = dict(
                type=f'{scope}.NormConnector', in_channels=teacher_channels, norm_cfg=norm_cfg
            )
            losses[f'loss_{level}'] = dict(type=f'{scope}.ChannelWiseDivergence')
            mappings[f'loss_{level}'] = dict(
                preds_S=dict(from_student=True, recorder=level, connector=f'{level}_s'),
                preds_T=dict(from_student=False, recorder=level, connector=f'{level}_t'),
            )
        recorders = {level: dict(type='ModuleOutputs', source='unused') for level in features}
        sides[scope] = MODELS.build(
            dict(
                type='rtm_kd.ConfigurableDistiller',
                student_recorders=recorders,
                teacher_recorders=recorders,
                connectors=connectors,
                distill_losses=losses,
                loss_forward_mappings=mappings,
                # Module by module where the classes are MMRazor's.
                reference=scope == 'mmrazor',
            )
        ).to(device)

    seconds, memory = defaultdict(list), {}
    for index in range(steps + 2):
        for scope, distiller in sides.items():
            student, teacher = (
                {
                    level: [pair[side].contiguous(memory_format=formats[scope])]
                    for level, pair in features.items()
                }
                for side in (0, 1)
            )
            for (feature,) in student.values():
                feature.requires_grad_()

            def run(distiller=distiller, student=student, teacher=teacher):
                sum(distiller.compute_distill_losses(student, teacher).values()).backward()

            if index == 0:
                memory[scope] = peak_memory(run)
            else:
                seconds[scope].append(time_of(run))
            for (feature,) in student.values():
                feature.grad = None
    return {
        scope: dict(seconds=statistics.median(seconds[scope][1:]), memory=memory[scope])
        for scope in sides
    }
