"""Reading, finding, checking and converting checkpoints."""

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

from .errors import UsageError, first_few
from .files import atomic_write

STUDENT_PREFIX = 'architecture.'
# A file that OpenMMLab published: <date>_<time>-<hash>.pth
_PUBLISHED = re.compile(r'_\d{8}_\d{6}-[0-9a-f]{8}\.pth$')
# Modules of MMDetection's RTMDet -> MMYOLO's names.
_MMDET_NAMES = {
    'neck.reduce_layers.0.': 'neck.reduce_layers.2.',
    'neck.reduce_layers.1.': 'neck.top_down_layers.0.1.',
    'neck.top_down_blocks.0.': 'neck.top_down_layers.0.0.',
    'neck.top_down_blocks.1.': 'neck.top_down_layers.1.',
    'neck.downsamples.': 'neck.downsample_layers.',
    'neck.bottom_up_blocks.': 'neck.bottom_up_layers.',
    'neck.out_convs.': 'neck.out_layers.',
    'bbox_head.': 'bbox_head.head_module.',
}


def read_checkpoint(checkpoint: str) -> dict[str, Any]:
    """Read a checkpoint, from its path or URL, onto the CPU.

    Returns:
        dict: The content of the file, with the weights in ``'state_dict'``: name -> tensor.

    Raises:
        ValueError: If the file is missing, can't be downloaded or is not a checkpoint.
    """
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        raise UsageError(f'there is no checkpoint file {checkpoint}')
    try:
        if _PUBLISHED.search(checkpoint) and '://' not in checkpoint:
            check_hash(checkpoint)
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except URLError as error:
        raise UsageError(
            f"the checkpoint {checkpoint} can't be downloaded ({error.reason}); "
            'download it where there is a network and give the path of the file'
        ) from error
    except pickle.UnpicklingError as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # torch raises anything on a foreign file
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
    # A model that was saved inside DistributedDataParallel has the prefix.
    content['state_dict'] = {
        name.removeprefix('module.'): value for name, value in state_dict.items()
    }
    return content


def class_names(metainfo: Any) -> Optional[list[str]]:
    """Return the class names in the order of their labels, None without a list of names.

    The metainfo is a dataset's, or ``dataset_meta`` of a checkpoint's ``meta``, which can be
    anything in an untrusted file.
    """
    names = metainfo.get('classes') if isinstance(metainfo, dict) else None
    named = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    return list(names) if named else None


def checkpoints_newest_first(work_dir: str) -> list[Path]:
    """Return the checkpoints of a work dir, readable or not.

    The one in MMEngine's ``last_checkpoint`` comes first, then the others by modification time.
    """
    paths, noted = [*Path(work_dir).glob('*.pth')], Path()
    try:
        noted = Path((Path(work_dir) / 'last_checkpoint').read_text())
        # By name: the work dir may have been moved since.
        if noted.is_file() and noted.name not in [path.name for path in paths]:
            # Where CheckpointHook(out_dir=...) saves.
            paths += noted.parent.glob('*.pth')
    except (OSError, UnicodeDecodeError):
        pass
    return sorted(paths, key=lambda path: (path.name != noted.name, -os.path.getmtime(path)))


def newest_checkpoint(work_dir: str) -> Optional[str]:
    """Return the path of the newest checkpoint that a run can resume from, None if there is none.

    Checkpoints that can't be read are skipped with a warning.

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
            f'none of the checkpoints in {work_dir} can be read: {", ".join(torn)}; start again '
            'without --resume, in another work dir'
        )
    return None


def student_state_dict(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the student's weights of a distillation, or those of a plain model unchanged."""
    return {
        name.removeprefix(STUDENT_PREFIX): value
        for name, value in state_dict.items()
        if name.startswith(STUDENT_PREFIX)
    } or state_dict


def accept_plain_weights(state_dict: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Rename a plain model's weights, which a distillation loads, to those of its student.

    A pre-hook of ``load_state_dict``, as is :func:`accept_distilled_weights`.
    """
    if not any(name.startswith(prefix + STUDENT_PREFIX) for name in state_dict):
        for name in [name for name in state_dict if name.startswith(prefix)]:
            plain = name[len(prefix) :]
            state_dict[prefix + STUDENT_PREFIX + plain] = state_dict.pop(name)


def accept_distilled_weights(state_dict: dict[str, torch.Tensor], *_: Any) -> None:
    """Reduce a distillation's weights, which a plain model loads, to those of the student.

    Such are the distilled weights that MMYOLO has published. MMEngine would find none of the
    model's names in the file, and start from scratch with a warning for each.
    """
    student = dict(student_state_dict(state_dict))
    state_dict.clear()
    state_dict.update(student)


def from_mmdet_names(
    state_dict: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Rename the weights of MMDetection's RTMDet to MMYOLO's names; return others unchanged.

    Both have the same modules; MMYOLO's head has them below ``head_module``. ``expected`` are the
    weights of the model that gets them, which may be MMDetection's too.
    """
    if not _has_mmdet_names(state_dict) or _has_mmdet_names(expected):
        return state_dict

    def renamed(name: str) -> str:
        old = next(filter(name.startswith, _MMDET_NAMES), '')
        return _MMDET_NAMES.get(old, '') + name[len(old) :]

    return {renamed(name): tensor for name, tensor in state_dict.items()}


def _has_mmdet_names(state_dict: dict[str, torch.Tensor]) -> bool:
    return any(name.startswith('neck.top_down_blocks.') for name in state_dict)


def check_state_dict(
    state_dict: dict[str, torch.Tensor],
    expected: dict[str, torch.Tensor],
    checkpoint: str,
    model: str,
) -> None:
    """Raise unless the tensors of a checkpoint have exactly the names and shapes of a model's.

    Raises:
        ValueError: Naming the checkpoint, the model and the first tensors that do not fit.
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
        raise UsageError(
            f'the checkpoint {checkpoint} does not fit {model}: '
            f'{first_few(faults, separator="; ")}; {_guess(state_dict, expected)}'
        )


def load_detector(
    model: nn.Module,
    state_dict: dict[str, torch.Tensor],
    checkpoint: str,
    name: str = 'the model of the config',
) -> None:
    """Load all weights of a detector, which may have MMDetection's names.

    ``checkpoint`` and ``name``, of the detector, are for the message.

    Raises:
        ValueError: Naming the first tensors that do not fit.
    """
    expected = model.state_dict()
    state_dict = from_mmdet_names(state_dict, expected)
    check_state_dict(state_dict, expected, checkpoint, name)
    model.load_state_dict(state_dict)


def _shape(value: Any) -> Union[tuple, str]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else 'no tensor'


def check_start(checkpoint: str, model: nn.Module, name: str) -> None:
    """Raise unless the backbone of a checkpoint to start from fits a detector.

    The rest may differ, such as a head for other classes: MMEngine skips weights that do not fit,
    even if none fits.

    Raises:
        ValueError: If the checkpoint can't be read, or is of another model; ``name`` is what the
            message calls the detector.
    """
    content = student_state_dict(read_checkpoint(checkpoint)['state_dict'])
    backbones = [
        {key: value for key, value in state_dict.items() if key.startswith('backbone.')}
        for state_dict in (content, model.state_dict())
    ]
    check_state_dict(*backbones, checkpoint, name)


def _guess(state_dict: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> str:
    """Return in a few words why a checkpoint may not fit."""
    if any(name.startswith(STUDENT_PREFIX) for name in state_dict):
        return (
            'it is the checkpoint of a distillation; '
            'tools/model_converters/convert_kd_ckpt_to_student.py extracts the student'
        )
    shared = [name for name in expected if isinstance(state_dict.get(name), torch.Tensor)]
    if len(shared) < len(expected) / 10:
        return 'it is of another model'
    for name in shared:
        has, needs = state_dict[name].shape, expected[name].shape
        if has and needs and has[0] != needs[0]:
            return f'it is of another size: its first layers have {has[0]} channels, not {needs[0]}'
    return 'it is of another depth, or parts of it are missing'


def convert_to_student(
    checkpoint: str, out_path: Optional[str] = None, inplace: bool = False
) -> Path:
    """Write the student of a distillation checkpoint, ours or MMRazor's, as a plain checkpoint.

    Args:
        checkpoint (str): Path of the checkpoint.
        out_path (str, optional): Folder for ``<name>_student.pth``. Defaults to the folder
            of the checkpoint.
        inplace (bool): Replace the checkpoint instead.

    Returns:
        Path: The file written. It loads strictly under the student's own config.

    Raises:
        ValueError: If it is not a distillation checkpoint, or can't be read.
    """
    content = read_checkpoint(checkpoint)
    if not any(name.startswith(STUDENT_PREFIX) for name in content['state_dict']):
        raise UsageError(
            f'{checkpoint} has no student: none of its tensors begins with "{STUDENT_PREFIX}", '
            'so it was not written by a distillation, or has been converted already'
        )
    source = Path(checkpoint)
    folder = Path(out_path) if out_path else source.parent
    target = source if inplace else folder / f'{source.stem}_student.pth'
    save_detector(content, target)
    return target


def save_detector(content: dict[str, Any], target: Path) -> None:
    """Write the student, or the plain model, of a checkpoint that :func:`read_checkpoint` returned.

    Its ``meta`` is kept, except for the training's config.
    """
    meta = {key: value for key, value in content.get('meta', {}).items() if key != 'cfg'}
    file = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=student_state_dict(content['state_dict'])), file)
    with atomic_write(target) as part:
        # Not with torch.save, whose error names neither a full disk nor the file.
        part.write_bytes(file.getbuffer())
