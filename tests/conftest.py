import json
import signal

import cv2
import hypothesis
import numpy as np
import pytest
import torch
from helpers import CLASSES, KD_CONFIG, ROOT, make_options

from rtm_kd.apis.train import train

# Fuzz tests run the same 40 cases every time; tools/soak.sh runs thousands of new ones.
_everywhere = dict(deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.register_profile('tests', derandomize=True, max_examples=40, **_everywhere)
hypothesis.settings.register_profile('soak', max_examples=2000, **_everywhere)
hypothesis.settings.load_profile('tests')


@pytest.fixture(autouse=True, scope='session')
def _one_thread():
    # More threads than free cores slows this and other programs down many times.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope='session')
def _ctrl_c():
    """Restore Ctrl-C, which a background job (``pytest &``) and its children ignore."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope='session')
def _unformatted():
    """Skip MMEngine's formatting of each config it logs or saves, which takes a second."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(scope='session')
def data_root(tmp_path_factory):
    """A COCO dataset of twelve images of 64x64 pixels with one box each."""
    root = tmp_path_factory.mktemp('data')
    (root / 'images').mkdir()
    (root / 'annotations').mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(12):
        image = rng.integers(0, 80, (64, 64, 3), dtype=np.uint8)
        x, y, size = (int(n) for n in rng.integers([4, 4, 16], [24, 24, 36]))
        if i % 2:
            cv2.rectangle(image, (x, y), (x + size, y + size), (200, 220, 240), -1)
        else:
            half = size // 2
            cv2.circle(image, (x + half, y + half), half, (240, 200, 180), -1)
        cv2.imwrite(str(root / 'images' / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', width=64, height=64))
        annotations.append(
            dict(
                id=i + 1,
                image_id=i,
                category_id=i % 2,
                bbox=[x, y, size, size],
                area=size * size,
                iscrowd=0,
            )
        )
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES)],
    )
    for split in ('train', 'val'):
        (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))
    return root


@pytest.fixture
def options(data_root):
    return make_options(data_root)


@pytest.fixture(scope='session')
def distilled(data_root, tmp_path_factory):
    """Work dir of a complete distillation: three epochs, detached after the second."""
    work_dir = tmp_path_factory.mktemp('distilled')
    train(KD_CONFIG, work_dir=str(work_dir), cfg_options=make_options(data_root))
    return work_dir


@pytest.fixture
def kd_config():
    return KD_CONFIG


@pytest.fixture
def plain_config():
    return str(ROOT / 'configs/custom_dataset/rtmdet_student.py')
