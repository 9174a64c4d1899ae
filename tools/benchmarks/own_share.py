"""Cost of connectors and losses alone."""

import statistics
from collections import defaultdict

import torch
from mmengine.registry import MODELS

from rtm_kd.models.distillers.fpn_distiller import fpn_wiring

from .measure import peak_memory, time_of
from .variants import respell


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
        size (int): Side of the images, in pixels.
        batch (int): Number of images.
        steps (int): Repetitions, interleaved.

    Returns:
        dict: For ``'mmrazor'`` and ``'rtm_kd'`` the median ``'seconds'`` and the peak of
        ``'memory'`` beyond the features themselves, in bytes.
    """
    import mmrazor.models  # noqa: F401, registers its classes

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    features = {
        f'fpn{i}': [
            torch.randn(batch, channels, size // stride, size // stride, device=device)
            for channels in (student_channels, teacher_channels)
        ]
        for i, stride in enumerate((8, 16, 32))
    }
    # Each in the memory format in which its models pass them on.
    formats = dict(mmrazor=torch.contiguous_format, rtm_kd=torch.channels_last)
    wiring = fpn_wiring('unused.{}')
    for name, connector in wiring['connectors'].items():
        if name.endswith('_s'):
            connector.update(in_channel=student_channels, out_channel=teacher_channels)
        else:
            connector.update(in_channels=teacher_channels)
    sides = {}
    for scope in formats:
        # Module by module with MMRazor's classes.
        distiller = respell(wiring, scope)
        distiller.update(type='rtm_kd.ConfigurableDistiller', reference=scope == 'mmrazor')
        sides[scope] = MODELS.build(distiller).to(device)

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
