"""Exporting a detector as one file to ship."""

import hashlib
import importlib.metadata
import io
import json
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope

from rtm_kd.checks.config import check_output_folder
from rtm_kd.checks.pipelines import shaping_of
from rtm_kd.deploy import DetectionNetwork, Selection, to_onnx, to_torchscript
from rtm_kd.deploy.onnx_graph import import_onnx
from rtm_kd.models.distillation import use_student
from rtm_kd.registry import DATASETS, MODELS
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.build_errors import explain_build_errors
from rtm_kd.utils.checkpoint import (
    class_names,
    load_detector,
    read_checkpoint,
    student_state_dict,
)
from rtm_kd.utils.config import get_value, innermost_dataset
from rtm_kd.utils.files import atomic_write
from rtm_kd.utils.internals import normalises, swaps_channels
from rtm_kd.version import __version__

#: Format -> file extension.
FORMATS = dict(pth='.pth', onnx='.onnx', torchscript='.pt')
# Share of the padding on the left and above.
_CENTERING = {'below and on the right': [0.0, 0.0], 'on all sides': [0.5, 0.5]}


def export(
    config: str,
    checkpoint: str,
    format: str,
    out_path: Optional[str] = None,
    half: bool = False,
    with_nms: bool = False,
    dynamic: bool = False,
    licence: Optional[str] = None,
    cfg_options: Optional[dict[str, Any]] = None,
) -> Path:
    """Write a detector, or the student of a distillation, as one file to ship.

    The weights are those in the checkpoint's ``state_dict``: the averaged ones if the training had
    an EMA. The file contains what :func:`describe` returns.

    The arguments are the options of ``tools/export.py``, whose ``--help`` describes them.

    Returns:
        Path: The file, written atomically: ``<name of the config>-<hash>`` with the first eight
        digits of its SHA-256.

    Raises:
        ValueError: For anything that the user can fix.
    """
    if format not in FORMATS:
        raise UsageError(f'the format must be one of {", ".join(FORMATS)}, got {format!r}')
    if format == 'pth' and (with_nms or dynamic):
        raise UsageError(
            'a pth file holds weights and no computation: --with-nms and --dynamic are for '
            'onnx and torchscript'
        )
    if format == 'onnx':
        import_onnx()
    folder = Path(out_path or ('' if '://' in checkpoint else Path(checkpoint).parent))
    check_output_folder('--out-path', folder)
    cfg, model, content = load_student(config, checkpoint, cfg_options)
    facts = describe(cfg, model, content, licence)
    if half:
        facts['precision'] = 'float16'
    if format == 'pth':
        data = _checkpoint(model, content, facts, half)
    else:
        data = _network(model, format, facts, half, with_nms, dynamic)
    digest = hashlib.sha256(data).hexdigest()[:8]
    target = folder / f'{Path(config).stem}-{digest}{FORMATS[format]}'
    with atomic_write(target) as part:
        part.write_bytes(data)
    return target


def _network(
    model: BaseModel, format: str, facts: dict[str, Any], half: bool, with_nms: bool, dynamic: bool
) -> bytes:
    size, network = facts['input_size'], DetectionNetwork(model, half)
    if any(side % network.stride for side in size):
        raise UsageError(
            f'the config tests on images of {size[0]}x{size[1]} pixels, and the network needs '
            f'multiples of {network.stride}; change the size in its test_pipeline'
        )
    selection = None
    if with_nms:
        head = model.bbox_head
        selection = Selection.from_test_cfg(head.test_cfg, head.num_classes)
        facts['nms'] = vars(selection)
    if format == 'onnx':
        as_text = {name: json.dumps(value) for name, value in facts.items()}
        return to_onnx(network, size, selection, dynamic, as_text)
    as_text = {'metadata.json': json.dumps(facts, indent=1)}
    return to_torchscript(network, size, selection, dynamic, as_text)


def load_student(
    config: str, checkpoint: str, cfg_options: Optional[dict[str, Any]] = None
) -> tuple[Config, BaseModel, dict[str, Any]]:
    """Build a detector, or the student of a distillation, with the weights of a checkpoint.

    Config and checkpoint, a path or URL, may each be of either.

    Returns:
        tuple[Config, BaseModel, dict]: The detector's config, the detector in eval mode, and the
        content of the checkpoint.

    Raises:
        ValueError: If either can't be read, or the weights don't fit.
    """
    cfg = load_config(config, cfg_options)
    use_student(cfg)
    content = read_checkpoint(checkpoint)
    state_dict = student_state_dict(content['state_dict'])
    scope = cfg.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope), explain_build_errors():
        model = MODELS.build(cfg.model).eval()
    load_detector(model, state_dict, checkpoint)
    return cfg, model, content


def describe(
    cfg: Config, model: BaseModel, content: dict[str, Any], licence: Optional[str] = None
) -> dict[str, Any]:
    """Return what a program needs to know to run a detector.

    The first arguments are what :func:`load_student` returns; ``licence`` overrides the licence of
    the network's package.

    Returns:
        dict: ``classes`` in the order of the labels; ``input_size`` as width and height;
        ``resizing``, ``'as it is'`` or ``'stretched'``; ``padding``, ``'below and on the right'``,
        ``'on all sides'`` or None; ``centering``, the padding as an argument of Pillow's
        ``ImageOps.pad``, and ``padding_colour``; ``colours``, the channel order of the input, of
        ``mean`` and of ``std``; ``precision``, ``licence`` and ``made_by``.

    Raises:
        ValueError: If config and checkpoint do not define the size of the images or the classes.
    """
    shaping = shaping_of(cfg, 'test')
    if shaping.size is None or shaping.shape is None:
        raise UsageError(
            "the config's test_dataloader does not resize images to one size; give its pipeline a "
            'LetterResize, or a Resize and a Pad'
        )
    preprocessor = model.data_preprocessor
    mean = std = None
    if normalises(preprocessor):
        mean, std = (value.flatten().tolist() for value in (preprocessor.mean, preprocessor.std))
        if not swaps_channels(preprocessor):
            mean, std = mean[::-1], std[::-1]
    package = type(model).__module__.split('.')[0]
    return dict(
        classes=_classes(cfg, model, content),
        input_size=list(shaping.size),
        resizing=shaping.shape,
        padding=shaping.padding,
        centering=_CENTERING.get(shaping.padding),
        padding_colour=None if shaping.colour is None else [int(c) for c in shaping.colour[::-1]],
        colours='RGB',
        mean=mean,
        std=std,
        precision='float32',
        licence=licence or f'the network is from {package} ({_licence_of(package)})',
        made_by=f'rtm_kd {__version__}, torch {torch.__version__}',
    )


def _classes(cfg: Config, model: BaseModel, content: dict[str, Any]) -> list[str]:
    # A two-stage detector has a roi_head.
    number = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
    dataset = innermost_dataset(get_value(cfg, 'test_dataloader.dataset', {}))
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(str(dataset.get('type')))
    for metainfo in (
        content.get('meta', {}).get('dataset_meta'),
        dataset.get('metainfo'),
        getattr(kind, 'METAINFO', None),
    ):
        names = class_names(metainfo)
        if names is not None and number in (None, len(names)):
            return names
    raise UsageError(
        'neither the checkpoint nor the config has names for the '
        f'{"" if number is None else f"{number} "}classes of the model; set '
        'metainfo=dict(classes=(...)) in the dataset of test_dataloader'
    )


def _licence_of(package: str) -> str:
    try:
        about = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return 'of unknown licence'
    return about.get('License-Expression') or about.get('License') or 'of unknown licence'


def _checkpoint(
    model: BaseModel, content: dict[str, Any], facts: dict[str, Any], half: bool
) -> bytes:
    state_dict = model.state_dict()
    if half:
        # As a whole: the levels of RTMDet's head share convolutions.
        halves = model.half().state_dict()
        for name, value in halves.items():
            if state_dict[name].isfinite().all() and not value.isfinite().all():
                raise UsageError(f'--half: {name} exceeds the range of float16; leave --half out')
        state_dict = halves
    meta = {key: value for key, value in content.get('meta', {}).items() if key != 'cfg'}
    known = meta.get('dataset_meta')
    meta['dataset_meta'] = dict(
        known if isinstance(known, dict) else {}, classes=tuple(facts['classes'])
    )
    file = io.BytesIO()
    torch.save(dict(meta=dict(meta, export=facts), state_dict=state_dict), file)
    return file.getvalue()
