import io
import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any, Optional, Union
from urllib.error import URLError

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from rtm_kd.compat.checkpoint_load import check_hash

from .errors import UsageError
from .files import atomic_write

STUDENT_PREFIX = 'architecture.'
# A file that OpenMMLab published: <date>_<time>-<hash>.pth
_PUBLISHED = re.compile(r'_\d{8}_\d{6}-[0-9a-f]{8}\.pth$')
# Names in the neck of MMDetection's RTMDet -> MMYOLO's, in which neck.<name> begins.
_MMDET_NECK = {
    'reduce_layers.0': 'reduce_layers.2',
    'reduce_layers.1': 'top_down_layers.0.1',
    'top_down_blocks.0': 'top_down_layers.0.0',
    'top_down_blocks.1': 'top_down_layers.1',
    'downsamples': 'downsample_layers',
    'bottom_up_blocks': 'bottom_up_layers',
    'out_convs': 'out_layers',
}


def read_checkpoint(checkpoint: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        checkpoint (str): Path or URL.

    Returns:
        dict: What the file holds, with the weights in ``'state_dict'``: name -> tensor.

    Raises:
        ValueError: If there is no such file, it can't be downloaded, or it is no checkpoint.
    """
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        raise UsageError(f'there is no checkpoint file {checkpoint}')
    try:
        if _PUBLISHED.search(checkpoint) and '://' not in checkpoint:
            check_hash(checkpoint, os.path.basename(checkpoint))
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except URLError as error:
        raise UsageError(
            f"the checkpoint {checkpoint} can't be downloaded ({error.reason}); "
            'download it where there is a network and give the path of the file'
        ) from error
    except pickle.UnpicklingError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # what torch raises on a foreign file differs by file and version
        reason = str(error).strip().split('\n')[0]
        raise UsageError(f"{checkpoint} can't be read as a checkpoint ({reason})") from error
    if isinstance(content, dict) and 'state_dict' not in content:
        content = dict(state_dict=content)
    state_dict = content['state_dict'] if isinstance(content, dict) else None
    if (
        not isinstance(state_dict, dict)
        or not all(isinstance(name, str) for name in state_dict)
        or not any(isinstance(value, torch.Tensor) for value in state_dict.values())
        or not isinstance(content.get('meta', {}), dict)
    ):
        raise UsageError(f'{checkpoint} holds no weights, so it is not a checkpoint of a model')
    # Left by a model that was saved inside DistributedDataParallel.
    content['state_dict'] = {
        name.removeprefix('module.'): value for name, value in state_dict.items()
    }
    return content


def class_names(metainfo: Any) -> Optional[list[str]]:
    """Return the names of the classes, in the order of their labels.

    Args:
        metainfo: The ``dataset_meta`` of a checkpoint's ``meta``, or the metainfo of a dataset; of
            a stranger's file anything.

    Returns:
        list[str] | None: None if it holds no list of names.
    """
    names = metainfo.get('classes') if isinstance(metainfo, dict) else None
    named = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return list(names) if named else None


def checkpoints_newest_first(work_dir: str) -> list[Path]:
    """Return the checkpoints of a work dir, whether they can be read or not.

    The one that MMEngine noted in ``last_checkpoint`` comes first, then the others by the
    time of their writing.
    """
    paths = sorted(Path(work_dir).glob('*.pth'), key=os.path.getmtime, reverse=True)
    try:
        noted = Path((Path(work_dir) / 'last_checkpoint').read_text())
        # By name: the work dir may have been moved since.
        paths.sort(key=lambda path: path.name != noted.name)
    except (OSError, UnicodeDecodeError):
        pass
    return paths


def newest_checkpoint(work_dir: str) -> Optional[str]:
    """Return the newest checkpoint of a work dir that a run can go on from.

    Of those in :func:`checkpoints_newest_first` one that can't be read is passed over with a
    warning.

    Returns:
        str | None: Its path, None if the work dir has no checkpoint.

    Raises:
        ValueError: If there are checkpoints and none can be read.
    """
    torn = []
    for path in checkpoints_newest_first(work_dir):
        try:
            content = read_checkpoint(str(path))
        except UsageError as error:
            torn.append(path.name)
            print_log(f'{error}; trying the one before', 'current', logging.WARNING)
            continue
        if 'optimizer' in content and 'iter' in content.get('meta', {}):
            return str(path)
    if torn:
        raise UsageError(
            f'none of the checkpoints in {work_dir} can be read: {", ".join(torn)}; begin anew '
            'without --resume, in another work dir'
        )
    return None


def student_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the student's weights out of a distillation's, a plain model's as they are."""
    return {
        name.removeprefix(STUDENT_PREFIX): value
        for name, value in state_dict.items()
        if name.startswith(STUDENT_PREFIX)
    } or state_dict


def from_mmdet_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of an RTMDet of MMDetection under MMYOLO's names, others as they are.

    Backbone and neck are the same modules in both; MMYOLO names those of the neck in another
    way, and its head's with ``head_module``.
    """
    if not has_mmdet_names(state_dict):
        return state_dict
    renamed = {}
    for name, tensor in state_dict.items():
        for old, new in _MMDET_NECK.items():
            if name.startswith(f'neck.{old}.'):
                name = f'neck.{new}.' + name[len(f'neck.{old}.') :]
                break
        else:
            name = re.sub(r'^bbox_head\.', 'bbox_head.head_module.', name)
        renamed[name] = tensor
    return renamed


def has_mmdet_names(state_dict: dict[str, torch.Tensor]) -> bool:
    """Whether these are the weights of an RTMDet as MMDetection names them."""
    return any(name.startswith('neck.top_down_blocks.') for name in state_dict)


def check_state_dict(
    state_dict: dict[str, torch.Tensor],
    expected: dict[str, torch.Tensor],
    checkpoint: str,
    model: str,
) -> None:
    """Raise unless every tensor is there, of the right shape, and no other.

    Args:
        state_dict (dict[str, Tensor]): What the checkpoint holds.
        expected (dict[str, Tensor]): What the model holds.
        checkpoint (str): Its path or URL, for the message.
        model (str): What it is to fit, for the message.

    Raises:
        ValueError: Naming the first tensors that do not fit.
    """
    faults = [
        f'{name} is {_shape(state_dict[name])}, expected {_shape(tensor)}'
        if name in state_dict
        else f'{name} is missing'
        for name, tensor in expected.items()
        if name not in state_dict or _shape(state_dict[name]) != _shape(tensor)
    ]
    faults += [f'{name} is unexpected' for name in state_dict if name not in expected]
    if faults:
        more = f' and {len(faults) - 3} more' if len(faults) > 3 else ''
        raise UsageError(
            f'the checkpoint {checkpoint} does not fit {model}: '
            f'{"; ".join(faults[:3])}{more}; {_guess(state_dict, expected)}'
        )


def _shape(value: Any) -> Union[tuple, str]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else 'no tensor'


def check_start(checkpoint: str, model: nn.Module, name: str) -> None:
    """Raise unless weights to start from fit the backbone of a detector.

    The rest may differ, as a head for other classes does: MMEngine leaves out what does not
    fit. It also does so where nothing fits, and says it among hundreds of lines.

    Args:
        checkpoint (str): Path or URL.
        model (nn.Module): A detector.
        name (str): What it is, for the message.

    Raises:
        ValueError: If the checkpoint can't be read, or is of another model.
    """
    content = student_state_dict(read_checkpoint(checkpoint)['state_dict'])
    backbones = [
        {key: value for key, value in state_dict.items() if key.startswith('backbone.')}
        for state_dict in (content, model.state_dict())
    ]
    check_state_dict(*backbones, checkpoint, name)


def _guess(state_dict: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str:
    """Say in a few words why a checkpoint may not fit."""
    if any(name.startswith(STUDENT_PREFIX) for name in state_dict):
        return (
            'it is the checkpoint of a distillation, whose student '
            'tools/model_converters/convert_kd_ckpt_to_student.py takes out'
        )
    shared = [name for name in expected if isinstance(state_dict.get(name), torch.Tensor)]
    if len(shared) < len(expected) / 10:
        return 'it is of another model'
    widths = [
        (state_dict[name].shape[0], expected[name].shape[0])
        for name in shared
        if state_dict[name].dim() and expected[name].dim()
    ]
    wider = next(((has, needs) for has, needs in widths if has != needs), None)
    if wider is not None:
        return f'it is of another size: its first layers have {wider[0]} channels, not {wider[1]}'
    return 'it is of another depth, or parts of it are missing'


def convert_to_student(
    checkpoint: str, out_path: Optional[str] = None, inplace: bool = False
) -> Path:
    """Write the student of a distillation checkpoint, ours or MMRazor's, as a plain one.

    The result loads strictly under the student's own config. Of the rest of the file its
    ``meta`` stays, without the config of the distillation.

    Args:
        checkpoint (str): Path of the checkpoint.
        out_path (str, optional): Folder for ``<name>_student.pth``. Defaults to the folder
            of the checkpoint.
        inplace (bool): Replace the checkpoint instead.

    Returns:
        Path: The file written.

    Raises:
        ValueError: If it is not a distillation checkpoint, or can't be read.
    """
    content = read_checkpoint(checkpoint)
    if not any(name.startswith(STUDENT_PREFIX) for name in content['state_dict']):
        raise UsageError(
            f'{checkpoint} has no student: none of its tensors begins with "{STUDENT_PREFIX}", '
            'so it was not written by a distillation, or is converted already'
        )
    source = Path(checkpoint)
    folder = Path(out_path) if out_path else source.parent
    target = source if inplace else folder / f'{source.stem}_student.pth'
    save_detector(content, target)
    return target


def save_detector(content: dict[str, Any], target: Path) -> None:
    """Write the detector of a checkpoint alone: a distillation's student, or the model itself.

    Args:
        content (dict): What :func:`read_checkpoint` returns. Of it the weights stay, and
            ``meta`` without the config of its training.
        target (Path): The file to write.
    """
    meta = {key: value for key, value in content.get('meta', {}).items() if key != 'cfg'}
    file = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=student_state_dict(content['state_dict'])), file)
    with atomic_write(target) as part:
        # Not by torch, whose error says neither of a full disk nor which file.
        part.write_bytes(file.getbuffer())
