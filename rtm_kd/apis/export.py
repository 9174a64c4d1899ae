import hashlib
import importlib.metadata
import io
import json
import os
from pathlib import Path
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope

from rtm_kd.checks.pipelines import shaping_of
from rtm_kd.deploy import DetectionNetwork, Selection, to_onnx, to_torchscript
from rtm_kd.deploy.onnx_graph import import_onnx
from rtm_kd.models.distillation import use_student
from rtm_kd.registry import DATASETS, MODELS
from rtm_kd.utils import UsageError, load_config
from rtm_kd.utils.checkpoint import (
    check_state_dict,
    class_names,
    read_checkpoint,
    student_state_dict,
)
from rtm_kd.utils.config import get_value, innermost_dataset
from rtm_kd.utils.errors import explain_build_errors
from rtm_kd.utils.files import atomic_write
from rtm_kd.utils.internals import normalises, swaps_channels
from rtm_kd.version import __version__

#: Format -> how its files end.
FORMATS = dict(pth='.pth', onnx='.onnx', torchscript='.pt')
# The share of the padding that is on the left and above.
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

    The weights are the checkpoint's ``state_dict``, where MMEngine puts the averaged ones if the
    training had an EMA. The file says in itself what :func:`describe` returns.

    Args:
        config (str): Path of the config of the detector or of the distillation.
        checkpoint (str): Path or URL. Every one of its weights must fit.
        format (str): ``'pth'``, ``'onnx'`` or ``'torchscript'``.
        out_path (str, optional): Folder for ``<name of the config>-<hash>.<format>``; the hash
            is the first eight digits of the file's SHA-256. Defaults to the folder of the
            checkpoint.
        half (bool): Weights, and their computation, in float16.
        with_nms (bool): The detections of each image, as the config's ``test_cfg`` selects
            them, instead of the boxes and scores of all priors.
        dynamic (bool): Any number of images, of any size that is a multiple of 32, instead of
            one of the config's.
        licence (str, optional): What the file says of its licence. Defaults to what is known:
            the licence of the package that the network comes from.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.

    Returns:
        Path: The file written. It is there as a whole or not at all.

    Raises:
        ValueError: For whatever the user can put right.
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
    folder = Path(out_path) if out_path else Path(checkpoint).parent
    if '://' in checkpoint and not out_path:
        folder = Path()
    _check_folder(folder)
    cfg, model, content = load_student(config, checkpoint, cfg_options)
    facts = describe(cfg, model, content, licence)
    if half:
        facts['precision'] = 'float16'
    if format == 'pth':
        data = _weights(model, content, facts, half)
    else:
        network = DetectionNetwork(model, half)
        selection = None
        if with_nms:
            head = model.bbox_head
            selection = Selection.from_test_cfg(head.test_cfg, head.num_classes)
            facts['nms'] = vars(selection)
        size = facts['input_size']
        if any(side % 32 for side in size):
            raise UsageError(
                f'the config tests on images of {size[0]}x{size[1]} pixels, and the network needs '
                'multiples of 32; change the size in its test_pipeline'
            )
        write = to_onnx if format == 'onnx' else to_torchscript
        as_text = {name: json.dumps(value) for name, value in facts.items()}
        if format == 'torchscript':
            as_text = {'metadata.json': json.dumps(facts, indent=1)}
        data = write(network, size, selection, dynamic, as_text)
    digest = hashlib.sha256(data).hexdigest()[:8]
    target = folder / f'{Path(config).stem}-{digest}{FORMATS[format]}'
    with atomic_write(target) as part:
        part.write_bytes(data)
    return target


def load_student(
    config: str, checkpoint: str, cfg_options: Optional[dict[str, Any]] = None
) -> tuple[Config, BaseModel, dict[str, Any]]:
    """Build a detector, or the student of a distillation, with the weights of a checkpoint.

    Args:
        config (str): Path of the config of either.
        checkpoint (str): Path or URL of a checkpoint of either.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.

    Returns:
        tuple[Config, BaseModel, dict]: The config, of the detector; the detector, in eval mode; and
        what else the checkpoint holds, see :func:`rtm_kd.utils.checkpoint.read_checkpoint`.

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
    check_state_dict(state_dict, model.state_dict(), checkpoint, 'the model of the config')
    model.load_state_dict(state_dict)
    return cfg, model, content


def describe(
    cfg: Config, model: BaseModel, content: dict[str, Any], licence: Optional[str] = None
) -> dict[str, Any]:
    """Return what whoever runs a detector has to know.

    Args:
        cfg (Config): The whole config, of a detector.
        model (BaseModel): The detector.
        content (dict): What :func:`rtm_kd.utils.checkpoint.read_checkpoint` returns.
        licence (str, optional): In place of what is known of it.

    Returns:
        dict: ``classes`` in the order of the labels; ``input_size`` as width and height;
        ``resizing``, ``'as it is'`` or ``'stretched'``; ``padding``, ``'below and on the right'``,
        ``'on all sides'`` or None; ``centering``, the same as Pillow's ``ImageOps.pad`` takes it,
        and ``padding_colour``; ``colours`` of the input; ``mean`` and ``std`` of the normalisation,
        in the order of these; ``precision``, ``licence`` and ``made_by``.

    Raises:
        ValueError: If config and checkpoint don't tell the size of the images or the classes.
    """
    shaping = shaping_of(cfg, 'test')
    if shaping.size is None or shaping.shape is None:
        raise UsageError(
            "the config's test_dataloader does not say to which size it brings images; give its "
            'pipeline a LetterResize, or a Resize and a Pad'
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
        licence=licence or f'the network is of {package} ({_licence_of(package)})',
        made_by=f'rtm_kd {__version__}, torch {torch.__version__}',
    )


def _classes(cfg: Config, model: BaseModel, content: dict[str, Any]) -> list[str]:
    number = model.bbox_head.num_classes
    dataset = innermost_dataset(get_value(cfg, 'test_dataloader.dataset', {}))
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(str(dataset.get('type')))
    for metainfo in (
        content.get('meta', {}).get('dataset_meta'),
        dataset.get('metainfo'),
        getattr(kind, 'METAINFO', None),
    ):
        names = class_names(metainfo)
        if names is not None and len(names) == number:
            return names
    raise UsageError(
        f'the model has {number} classes, and neither the checkpoint nor the config has as many '
        'names for them; set metainfo=dict(classes=(...)) in the dataset of test_dataloader'
    )


def _licence_of(package: str) -> str:
    try:
        about = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return 'of unknown licence'
    return about.get('License-Expression') or about.get('License') or 'of unknown licence'


def _weights(model: BaseModel, content: dict[str, Any], facts: dict[str, Any], half: bool) -> bytes:
    state_dict = model.state_dict()
    if half:
        # The levels of RTMDet's head share convolutions: a tensor of several names stays one.
        halves: dict[tuple, torch.Tensor] = {}
        for name, value in state_dict.items():
            key = value.data_ptr(), value.shape
            if key not in halves:
                halves[key] = _halved(name, value)
            state_dict[name] = halves[key]
    meta = {key: value for key, value in content.get('meta', {}).items() if key != 'cfg'}
    known = meta.get('dataset_meta')
    known = known if isinstance(known, dict) else {}
    meta['dataset_meta'] = {**known, 'classes': tuple(facts['classes'])}
    file = io.BytesIO()
    torch.save(dict(meta=dict(meta, export=facts), state_dict=state_dict), file)
    return file.getvalue()


def _halved(name: str, value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    if value.isfinite().all() and not half.isfinite().all():
        raise UsageError(f'--half: {name} leaves the range of float16; leave --half out')
    return half


def _check_folder(folder: Path) -> None:
    """Raise before the work begins unless the folder can be written."""
    probe = folder / f'.{os.getpid()}.part'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"{folder} can't be written ({error.strerror}); name another folder with --out-path"
        ) from error
