"""Pictures of the attention of student and teacher during training."""

import json
import re
from pathlib import Path

import cv2
import pytest

from rtm_kd.apis.train import train
from rtm_kd.engine.hooks import FeatureVisualizationHook

HOOK = dict(type='rtm_kd.FeatureVisualizationHook', num_images=2)


@pytest.fixture
def with_hook(kd_config, tmp_path):
    """A config to which the hook was added as a user would."""

    def write(base=kd_config, **arguments):
        path = tmp_path / 'own.py'
        hook = {**HOOK, **arguments}
        path.write_text(f'_base_ = {base!r}\ncustom_hooks = [*_base_.custom_hooks, {hook}]\n')
        return str(path)

    return write


def pictures(work_dir):
    """(image, iteration) -> picture saved by MMEngine's own backend."""
    found = {}
    for path in Path(work_dir).glob('*/vis_data/vis_image/*.png'):
        number, step = re.fullmatch(r'attention_(\d+)_(\d+)', path.stem).groups()
        found[int(number), int(step)] = cv2.imread(str(path))
    return found


def losses(work_dir):
    newest = max(Path(work_dir).glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    return [{name: line[name] for name in line if 'loss' in name} for line in lines]


def test_draws_teacher_and_student_and_from_the_detach_on_the_student_alone(
    with_hook, options, tmp_path, distilled
):
    train(with_hook(), work_dir=str(tmp_path / 'run'), cfg_options=options)

    drawn = pictures(tmp_path / 'run')
    # Before training, and after each of three epochs of three iterations.
    assert sorted(drawn) == [(image, step) for image in (0, 1) for step in (0, 3, 6, 9)]
    widths = {step: picture.shape[1] for (_, step), picture in drawn.items()}
    assert widths[0] == widths[3] == widths[6] == widths[9] / 2 * 3
    first, last = drawn[0, 0], drawn[0, 6]
    photograph, teacher, student = (
        slice(i * widths[0] // 3, (i + 1) * widths[0] // 3) for i in range(3)
    )
    assert (first[:, photograph] == last[:, photograph]).all()
    assert (first[:, teacher] == last[:, teacher]).all()
    assert (first[:, student] != last[:, student]).any()
    # The run of the fixture ``distilled`` differs only in the hook.
    assert losses(tmp_path / 'run') == losses(distilled)


def test_draws_by_iteration_and_in_a_resumed_run(with_hook, options, tmp_path, distilled):
    train(
        with_hook(interval=2, by_epoch=False, num_images=1),
        work_dir=str(tmp_path / 'run'),
        resume=str(distilled / 'epoch_2.pth'),
        cfg_options=options,
    )
    # Iterations 7 to 9 are left; a resumed run is not drawn again at its start.
    assert sorted(pictures(tmp_path / 'run')) == [(0, 8)]


@pytest.mark.parametrize('name', ['interval', 'num_images'])
@pytest.mark.parametrize('value', [0, -1, 1.5, True, None])
def test_refuses_an_interval_or_count_below_one(name, value):
    with pytest.raises(ValueError, match=f'{name} must be an integer from 1 up'):
        FeatureVisualizationHook(**{name: value})


def test_refuses_a_model_that_does_not_distil(with_hook, plain_config, options, tmp_path):
    options.pop('teacher_ckpt')
    with pytest.raises(ValueError, match='YOLODetector does not distil'):
        train(with_hook(plain_config), work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert not (tmp_path / 'run').exists()
