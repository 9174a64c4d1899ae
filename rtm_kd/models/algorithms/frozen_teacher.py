import os
from typing import Optional, Union
from urllib.error import URLError

import torch
from mmengine.model import BaseModel
from mmengine.runner.checkpoint import CheckpointLoader

from rtm_kd.utils.errors import UsageError

from ..distillers.recorder import Records, check_sources, record_outputs
from .detector import build_detector

RANDOM = 'random'
_PARTS = ('backbone', 'neck')


class FrozenTeacher:
    """Backbone and neck of a trained detector, for reading features.

    A plain object around a module, not a module: its owner does not list it among its
    parameters, buffers and checkpoint keys, and a copy of the owner shares it.

    Args:
        teacher (BaseModel | dict | str): As :func:`~.detector.build_detector` takes it.
        checkpoint (str, optional): Path or URL, or ``'random'``.
        sources (dict[str, str]): Recorder name -> dotted module name.

    Raises:
        ValueError: If there is no checkpoint, or a source is no module.
    """

    def __init__(
        self,
        teacher: Union[BaseModel, dict, str],
        checkpoint: Optional[str],
        sources: dict[str, str],
    ) -> None:
        built = isinstance(teacher, BaseModel)
        if checkpoint is None and not built:
            raise UsageError(
                'there is no teacher_ckpt, and an untrained teacher teaches noise; give the path '
                f'or URL of its checkpoint, or teacher_ckpt="{RANDOM}" if that is what you want'
            )
        self.model = build_detector(teacher, 'teacher')
        self.checkpoint = checkpoint
        self.sources = sources
        self._loaded = checkpoint == RANDOM or (built and checkpoint is None)
        check_sources(self.model, sources, 'teacher')
        if not built:
            for name, _ in list(self.model.named_children()):
                if name not in _PARTS:
                    setattr(self.model, name, None)
        self.model.eval().requires_grad_(False)

    def __deepcopy__(self, memo) -> 'FrozenTeacher':
        return self

    @torch.no_grad()
    def record(self, batch_inputs: torch.Tensor, loading: bool = True) -> Records:
        """Run backbone and neck.

        Args:
            batch_inputs (Tensor): Preprocessed images, (N, 3, H, W).
            loading (bool): Load the checkpoint first, unless it has been loaded.

        Returns:
            dict[str, list[Tensor]]: Recorder name -> its features, without gradients.
        """
        if loading:
            self.load()
        with record_outputs(self.model, self.sources) as records:
            self.model.extract_feat(batch_inputs)
        return records

    def load(self) -> None:
        """Load every tensor of backbone and neck, once.

        Raises:
            ValueError: If the checkpoint can't be read, or a tensor is missing, unexpected
                or of another shape.
        """
        if self._loaded:
            return
        state_dict = {
            name: tensor
            for name, tensor in read_state_dict(self.checkpoint).items()
            if name.split('.')[0] in _PARTS
        }
        self._check(state_dict)
        self.model.load_state_dict(state_dict, strict=True)
        self._loaded = True

    def _check(self, state_dict: dict[str, torch.Tensor]) -> None:
        expected = self.model.state_dict()
        faults = [
            f'{name} is {tuple(state_dict[name].shape)}, expected {tuple(tensor.shape)}'
            if name in state_dict
            else f'{name} is missing'
            for name, tensor in expected.items()
            if name not in state_dict or state_dict[name].shape != tensor.shape
        ]
        faults += [f'{name} is unexpected' for name in state_dict if name not in expected]
        if faults:
            more = f' and {len(faults) - 3} more' if len(faults) > 3 else ''
            raise UsageError(
                f'the checkpoint {self.checkpoint} does not fit the teacher: '
                f'{"; ".join(faults[:3])}{more}; is it of another size or another model?'
            )


def read_state_dict(checkpoint: str) -> dict[str, torch.Tensor]:
    """Read the weights of a checkpoint.

    Args:
        checkpoint (str): Path or URL.

    Returns:
        dict[str, Tensor]: Name -> tensor, on the CPU.

    Raises:
        ValueError: If there is no such file, it can't be downloaded, or it is no checkpoint.
    """
    remote = '://' in checkpoint
    if not remote and not os.path.isfile(checkpoint):
        raise UsageError(f'there is no checkpoint file {checkpoint}')
    try:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except URLError as error:
        raise UsageError(
            f"the checkpoint {checkpoint} can't be downloaded ({error.reason}); "
            'download it where there is a network and give the path of the file'
        ) from error
    except Exception as error:  # what torch raises on a foreign file differs by file and version
        reason = str(error).strip().split('\n')[0]
        raise UsageError(f"{checkpoint} can't be read as a checkpoint ({reason})") from error
    state_dict = content.get('state_dict', content) if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not any(
        isinstance(value, torch.Tensor) for value in state_dict.values()
    ):
        raise UsageError(f'{checkpoint} holds no weights, so it is not a checkpoint of a model')
    return {name.removeprefix('module.'): value for name, value in state_dict.items()}
