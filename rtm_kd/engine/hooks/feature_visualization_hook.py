"""Pictures of where student and teacher attend, during training."""

from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dataset import pseudo_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from rtm_kd.registry import HOOKS
from rtm_kd.reports.attention import (
    attention_maps,
    compared_recorders,
    draw_attention,
    without_padding,
)
from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.internals import unwrap_model
from rtm_kd.utils.preserving import evaluating, preserved_randomness

# In pixels: the longer side of an image, a line of text, a gap.
_SIZE, _LINE, _GAP = 256, 20, 4
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@HOOKS.register_module()
class FeatureVisualizationHook(Hook):
    """Draw where student and teacher attend, for all ``vis_backends`` of the config.

    Before training and every ``interval``, each of the first validation images becomes one picture
    ``attention_<number of the image>``: a row for each distilled level, with the image, the
    teacher's attention until the detach, and the student's; see
    :func:`~rtm_kd.reports.attention.draw_attention`. Training is the same with the hook as without.
    docs/configs.md has a config with the hook and several backends.

    Args:
        interval (int): Epochs, or iterations, between two pictures of an image. Defaults to 1.
        num_images (int): Number of images. Defaults to 4.
        by_epoch (bool): Whether ``interval`` counts epochs. Defaults to True.

    Raises:
        ValueError: If a number is not above 0, the model does not distil, or the run has no
            validation images.
    """

    def __init__(self, interval: int = 1, num_images: int = 4, by_epoch: bool = True) -> None:
        for name, value in (('interval', interval), ('num_images', num_images)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f'{name} must be an integer from 1 up, got {value!r}')
        self.interval = interval
        self.num_images = num_images
        self.by_epoch = by_epoch
        self._samples: list[dict] = []

    def before_train(self, runner: Runner) -> None:
        model = unwrap_model(runner.model)
        if not hasattr(model, 'distiller'):
            raise UsageError(
                f'a {type(model).__name__} does not distil, so FeatureVisualizationHook has no '
                'features to show; take it out of custom_hooks'
            )
        if runner.val_loop is None:
            raise UsageError(
                'FeatureVisualizationHook draws validation images, and the config has no '
                'val_dataloader'
            )
        dataset = runner.val_loop.dataloader.dataset
        with preserved_randomness():
            self._samples = [dataset[i] for i in range(min(self.num_images, len(dataset)))]
        if runner.iter == 0:
            self._draw(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._draw(runner)

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._draw(runner, done=1)

    @master_only
    def _draw(self, runner: Runner, done: int = 0) -> None:
        model = unwrap_model(runner.model)
        with evaluating(model):
            for number, sample in enumerate(self._samples):
                # LocalVisBackend turns the name into a file name, so it must not have a slash.
                name, step = f'attention_{number}', runner.iter + done
                runner.visualizer.add_image(name, _picture(model, sample), step=step)


def _picture(model: nn.Module, sample: dict) -> np.ndarray:
    """Return (H, W, 3), RGB: a row for each level, columns for the image and each model."""
    data = model.data_preprocessor(pseudo_collate([sample]), False)
    data_sample, input_shape = data['data_samples'][0], tuple(data['inputs'].shape[-2:])
    image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
    image = without_padding(np.ascontiguousarray(image), image.shape[:2], data_sample)
    image = mmcv.imrescale(image, (_SIZE, _SIZE))
    records = dict(zip(('student', 'teacher'), model.record_features(data['inputs'])))
    maps = {owner: attention_maps(features) for owner, features in records.items() if features}
    rows = []
    for student, teacher in compared_recorders(model.distiller.loss_forward_mappings).items():
        pictures = [_titled(image, student)]
        for owner, recorder in (('teacher', teacher), ('student', student)):
            if recorder in maps.get(owner, {}):
                attention = maps[owner][recorder][0]
                multiples = (attention * attention.numel()).numpy()
                multiples = without_padding(multiples, input_shape, data_sample)
                pictures.append(_titled(draw_attention(image, multiples), owner))
        rows.append(np.hstack(pictures))
    return np.vstack(rows)


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """Put a line of text above an image, and a gap on its right."""
    page = cv2.copyMakeBorder(image, _LINE, 0, 0, _GAP, cv2.BORDER_CONSTANT, value=_WHITE)
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(page, title, (2, _LINE - 6), font, 0.45, _BLACK, 1, cv2.LINE_AA)
