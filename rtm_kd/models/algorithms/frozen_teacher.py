"""The teacher, and the conversion of the student's images to its normalisation."""

import copy
import functools
from collections.abc import Callable
from typing import Optional, Union

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel, ImgDataPreprocessor
from torch import nn

from rtm_kd.utils.checkpoint import STUDENT_PREFIX, load_detector, read_checkpoint
from rtm_kd.utils.errors import UsageError
from rtm_kd.utils.internals import normalises, swaps_channels

from ..distillers.recorder import Records, check_sources, record_features, recorded_parts
from ..folding import fold_batch_norms
from .detector import FEATURE_PARTS, build_detector

RANDOM = 'random'


class FrozenTeacher:
    """Backbone and neck of a trained detector, and the head where a recorder is in it.

    A plain object around a module, not a module: its owner does not list it among its parameters,
    buffers and checkpoint keys. A copy of the owner, such as EMAHook makes, shares it, and
    :meth:`release` frees it for all of them.

    Args:
        teacher (BaseModel | dict | str): As :func:`~.detector.build_detector` takes it.
        checkpoint (str, optional): Path or URL, or ``'random'``.
        sources (dict[str, str]): Recorder name -> dotted module name.
        preprocessor (nn.Module, optional): The data preprocessor of the images it will get. Where
            its own normalises in another way, they are converted.
        reference (bool): Leave the model as it was built. By default BN is folded into the
            convolutions and the model runs channels_last.

    Raises:
        ValueError: If there is no checkpoint, or a source is not a module.
    """

    def __init__(
        self,
        teacher: Union[BaseModel, dict, str],
        checkpoint: Optional[str],
        sources: dict[str, str],
        preprocessor: Optional[nn.Module] = None,
        reference: bool = False,
    ) -> None:
        built = isinstance(teacher, BaseModel)
        if built:
            # The caller's model stays as it is.
            teacher = copy.deepcopy(teacher)
        if checkpoint is None and not built:
            raise UsageError(
                'there is no teacher_ckpt, and an untrained teacher teaches noise; give the path '
                f'or URL of its checkpoint, or teacher_ckpt="{RANDOM}" if that is what you want'
            )
        if checkpoint is not None and not isinstance(checkpoint, str):
            raise UsageError(f'teacher_ckpt must be a path or URL, got {checkpoint!r}')
        self.model = build_detector(teacher, 'teacher')
        self.checkpoint = checkpoint
        self.sources = sources
        self.reference = reference
        self._loaded = self._seen = False
        check_sources(self.model, sources, 'teacher')
        self._convert = pixel_conversion(preprocessor, self.model.data_preprocessor)
        if self._convert is not None:
            print_log("converting images to the teacher's normalisation", logger='current')
        self._parts = {*FEATURE_PARTS, *recorded_parts(sources)}
        for name, _ in list(self.model.named_children()):
            if name not in self._parts:
                setattr(self.model, name, None)
        self.model.eval().requires_grad_(False)

    def __deepcopy__(self, memo) -> 'FrozenTeacher':
        return self

    def release(self) -> None:
        """Free the model; ``model`` is None from then on."""
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def record(self, batch_inputs: torch.Tensor) -> Records:
        """Run the teacher with the weights of its checkpoint, and return what :meth:`probe` does.

        Raises:
            ValueError: If the features of the first batch are not finite, or constant.
        """
        self.load()
        records = self.probe(batch_inputs)
        if not self._seen:
            self._check_features(records)
            self._seen = True
        return records

    @torch.no_grad()
    def probe(self, batch_inputs: torch.Tensor) -> Records:
        """Run the teacher with the weights that it has, and return features without gradients.

        It gets the student's preprocessed images, (N, 3, H, W).
        """
        if self._convert is not None:
            batch_inputs = self._convert(batch_inputs)
        if not self.reference:
            weight = next(self.model.parameters())
            dtype = autocast_dtype(weight.device) or weight.dtype
            if dtype is not weight.dtype:
                # Once, instead of mixed precision's cast of every weight at every step.
                self.model.to(dtype)
            batch_inputs = batch_inputs.to(dtype, memory_format=torch.channels_last)
        return record_features(self.model, batch_inputs, self.sources)

    def _check_features(self, records: Records) -> None:
        for name, outputs in records.items():
            for feature in filter(torch.is_tensor, outputs):
                if not feature.isfinite().all():
                    fault = 'NaN or Inf'
                elif feature.numel() > 1 and feature.amin() == feature.amax():
                    fault = f'{feature.amin():g} everywhere'
                else:
                    continue
                raise UsageError(
                    f'on the first batch the teacher\'s "{self.sources[name]}" gives {fault}, from '
                    f'which nothing can be learnt; its checkpoint {self.checkpoint} is damaged or '
                    'its training failed'
                )

    def load(self) -> None:
        """Load every tensor of the parts that run, and make the model fast, once.

        Raises:
            ValueError: If the checkpoint can't be read, or a tensor is missing, unexpected
                or of another shape.
        """
        if self._loaded:
            return
        if self.checkpoint not in (None, RANDOM):
            state_dict = {
                name: tensor
                for name, tensor in read_checkpoint(self.checkpoint)['state_dict'].items()
                if name.split('.')[0] in self._parts or name.startswith(STUDENT_PREFIX)
            }
            load_detector(self.model, state_dict, self.checkpoint, 'the teacher')
        if not self.reference:
            fold_batch_norms(self.model, kept=set(self.sources.values()))
            self.model.to(memory_format=torch.channels_last)
        self._loaded = True


def autocast_dtype(device: torch.device) -> Optional[torch.dtype]:
    """Return the dtype of the mixed precision that is on for the device, None if it is off."""
    if hasattr(torch, 'get_autocast_dtype'):
        on = torch.is_autocast_enabled(device.type)
        return torch.get_autocast_dtype(device.type) if on else None
    if device.type == 'cpu':
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None


def pixel_conversion(
    source: nn.Module, target: nn.Module
) -> Optional[Callable[[torch.Tensor], torch.Tensor]]:
    """Return what turns the images of one data preprocessor into those of another.

    RTMDet normalises BGR by mean and deviation, YOLOv8 scales RGB to [0, 1]: unconverted, a teacher
    of one family would get garbage from the preprocessor of the other.

    Returns:
        Callable | None: A function of (N, 3, H, W) images, None if there is nothing to do, or
        one of the two is not an ``ImgDataPreprocessor``.
    """
    if not all(isinstance(part, ImgDataPreprocessor) for part in (source, target)):
        return None
    flip = swaps_channels(source) != swaps_channels(target)
    (mean, std), (target_mean, target_std) = _mean_and_std(source), _mean_and_std(target)
    if flip:
        mean, std = mean.flip(0), std.flip(0)
    scale, shift = std / target_std, (mean - target_mean) / target_std
    if not flip and bool((scale == 1).all() and (shift == 0).all()):
        return None
    return functools.partial(_convert, scale=scale.tolist(), shift=shift.tolist(), flip=flip)


def _mean_and_std(preprocessor: ImgDataPreprocessor) -> tuple[torch.Tensor, torch.Tensor]:
    if not normalises(preprocessor):
        return torch.zeros(3), torch.ones(3)
    values = preprocessor.mean.double().flatten(), preprocessor.std.double().flatten()
    return tuple(value.cpu().expand(3) for value in values)


def _convert(
    images: torch.Tensor, scale: list[float], shift: list[float], flip: bool
) -> torch.Tensor:
    if flip:
        images = images.flip(1)
    scale, shift = images.new_tensor([scale, shift]).view(2, 1, 3, 1, 1)
    return images * scale + shift
