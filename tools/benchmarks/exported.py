"""Inference time of a detector in PyTorch and in each export format."""

import statistics
import tempfile
from collections import defaultdict
from functools import partial
from typing import Any, Optional

import torch
from mmdet.structures import DetDataSample

from rtm_kd.apis.export import export, load_student
from rtm_kd.utils import UsageError

from .measure import time_of

_WARMUP = 3  # TorchScript compiles in its first runs.


def exported(
    config: str, checkpoint: str, cfg_options: Optional[dict[str, Any]] = None, runs: int = 10
) -> dict[str, dict[str, float]]:
    """Time one image of noise through network and NMS, on the CPU.

    Args:
        config (str): Path of the config of a detector or a distillation.
        checkpoint (str): Path of its checkpoint.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.
        runs (int): Repetitions, interleaved, all with torch's number of threads.

    Returns:
        dict: For ``'pytorch'`` and each format the median ``'seconds'`` and the ``'bytes'`` of its
        file, for PyTorch the pth file. TorchScript's half is converted to float32 by ``.float()``.

    Raises:
        ValueError: If onnxruntime is missing, or the detector can't be exported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError('--exported needs onnxruntime: `pip install onnxruntime`') from error
    _, model, _ = load_student(config, checkpoint, cfg_options)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        save = partial(export, config, checkpoint, out_path=folder, cfg_options=cfg_options)
        paths = {'pytorch': save('pth')}
        for format in ('onnx', 'torchscript'):
            paths[format] = save(format, with_nms=True)
            paths[f'{format} half'] = save(format, with_nms=True, half=True)
        sizes = {name: each.stat().st_size for name, each in paths.items()}
        sessions = {
            name: onnxruntime.InferenceSession(str(paths[name]), options)
            for name in ('onnx', 'onnx half')
        }
        shape = sessions['onnx'].get_inputs()[0].shape
        images = torch.randint(256, tuple(shape), dtype=torch.uint8)
        scale, padding = torch.ones(1, 2), torch.zeros(1, 4)
        arrays = dict(images=images.numpy(), scale_factor=scale.numpy(), pad_param=padding.numpy())
        metainfo = dict(ori_shape=shape[2:], img_shape=shape[2:], scale_factor=(1.0, 1.0))
        batch = dict(inputs=[images[0].flip(0)], data_samples=[DetDataSample(metainfo=metainfo)])
        functions = {'pytorch': partial(model.test_step, batch)}
        for name, session in sessions.items():
            functions[name] = partial(session.run, None, arrays)
        for name in ('torchscript', 'torchscript half'):
            # In half precision torch takes half a minute on a CPU, in float32 a second.
            program = torch.jit.load(str(paths[name])).float()
            functions[name] = partial(program, images, scale, padding)
        seconds = defaultdict(list)
        for _ in range(_WARMUP + runs):
            for name, function in functions.items():
                seconds[name].append(time_of(function))
    return {
        name: dict(seconds=statistics.median(times[_WARMUP:]), bytes=sizes[name])
        for name, times in seconds.items()
    }
