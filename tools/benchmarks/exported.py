"""How long a detector takes for an image, in PyTorch and in each format it is exported in."""

import statistics
import tempfile
from typing import Any, Optional

import torch
from mmdet.structures import DetDataSample

from rtm_kd.apis.export import export, load_student
from rtm_kd.utils import UsageError

from .measure import time_of


def exported(
    config: str, checkpoint: str, cfg_options: Optional[dict[str, Any]] = None, runs: int = 10
) -> dict[str, dict[str, float]]:
    """Time one image of noise through network and NMS, on the CPU.

    Args:
        config (str): Path of the config of a detector or a distillation.
        checkpoint (str): Path of its checkpoint.
        cfg_options (dict, optional): See :func:`rtm_kd.utils.load_config`.
        runs (int): Repetitions, in turn, all on as many threads as torch has.

    Returns:
        dict: For ``'pytorch'`` and each format, TorchScript's half brought back to float32 by
        ``.float()``, the median ``'seconds'`` and the ``'bytes'`` of its
        file, of PyTorch the pth file.

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
    kinds = dict(pytorch='pth', onnx='onnx', torchscript='torchscript')
    functions, sizes = {}, {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for name in ('pytorch', 'onnx', 'onnx half', 'torchscript', 'torchscript half'):
            format, half = kinds[name.split()[0]], name.endswith('half')
            path = export(
                config,
                checkpoint,
                format,
                folder,
                half=half,
                with_nms=format != 'pth',
                cfg_options=cfg_options,
            )
            sizes[name] = path.stat().st_size
            if format == 'onnx':
                session = onnxruntime.InferenceSession(str(path), options)
                shape = session.get_inputs()[0].shape
                functions[name] = session.run
            elif format == 'torchscript':
                # On a CPU torch takes half a minute for what float32 does in a second.
                functions[name] = torch.jit.load(str(path)).float()
        images = torch.randint(256, tuple(shape), dtype=torch.uint8)
        scale, padding = torch.ones(1, 2), torch.zeros(1, 4)
        arrays = dict(images=images.numpy(), scale_factor=scale.numpy(), pad_param=padding.numpy())
        about = dict(ori_shape=shape[2:], img_shape=shape[2:], scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=about)

        def run(name: str) -> None:
            if name == 'pytorch':
                model.test_step(dict(inputs=[images[0].flip(0)], data_samples=[sample]))
            elif name.startswith('onnx'):
                functions[name](None, arrays)
            else:
                functions[name](images, scale, padding)

        seconds = {name: [] for name in sizes}
        # TorchScript compiles in its first runs.
        for index in range(runs + 3):
            for name, times in seconds.items():
                elapsed = time_of(lambda name=name: run(name))
                if index >= 3:
                    times.append(elapsed)
    return {
        name: dict(seconds=statistics.median(times), bytes=sizes[name])
        for name, times in seconds.items()
    }
