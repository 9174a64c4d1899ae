"""MMEngine's and MMDetection's own programs accept a converted student."""

import json
import runpy
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from helpers import unique_names
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.runner import Runner

from rtm_kd.apis.test import test as run_test
from rtm_kd.utils import load_config
from rtm_kd.utils.checkpoint import convert_to_student

TOOLS = Path(mmdet.__path__[0], '.mim/tools')


@pytest.fixture(scope='module')
def student(distilled, tmp_path_factory):
    return str(convert_to_student(str(distilled / 'epoch_3.pth'), tmp_path_factory.mktemp('out')))


@pytest.fixture
def config(plain_config, options, tmp_path):
    """The student's config as one plain MMYOLO file that does not need rtm_kd."""
    del options['teacher_ckpt']
    path = tmp_path / 'student.py'
    load_config(plain_config, options).dump(str(path))
    return str(path)


def test_runner_and_mmdetections_tool_give_the_same_map_as_ours(
    config, student, tmp_path, monkeypatch
):
    expected = run_test(config, student, work_dir=str(tmp_path / 'ours'))

    cfg = Config.fromfile(config)
    cfg.update(load_from=student, work_dir=str(tmp_path / 'runner'))
    cfg.merge_from_dict(unique_names())
    assert Runner.from_cfg(cfg).test() == expected

    arguments = ['test.py', config, student, '--work-dir', str(tmp_path / 'tool')]
    arguments += ['--cfg-options', *(f'{name}={value}' for name, value in unique_names().items())]
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(TOOLS / 'test.py'), run_name='__main__')
    (metrics,) = (tmp_path / 'tool').glob('*/*.json')
    assert json.loads(metrics.read_text()).items() >= expected.items()


def test_det_inferencer_runs_the_student(config, student, data_root, tmp_path):
    # After so few steps some boxes are inverted, which MMDetection refuses to draw.
    content = torch.load(student, map_location='cpu')
    biases = [name for name in content['state_dict'] if 'rtm_reg' in name and 'bias' in name]
    for name in biases:
        content['state_dict'][name] += 1
    student = str(tmp_path / 'student.pth')
    torch.save(content, student)
    assert biases

    inferencer = DetInferencer(config, student, device='cpu', show_progress=False)
    found = inferencer(str(data_root / 'images/0.png'), out_dir=str(tmp_path), pred_score_thr=0)
    (prediction,) = found['predictions']
    assert len(prediction['bboxes']) == len(prediction['scores']) > 0
    assert set(prediction['labels']) <= {0, 1}
    assert inferencer.model.dataset_meta['classes'] == ('disc', 'square')
    assert (tmp_path / 'vis/0.png').is_file()


def test_flops_are_counted(config, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['get_flops.py', config, '--num-images', '1'])
    runpy.run_path(str(TOOLS / 'analysis_tools/get_flops.py'), run_name='__main__')
    assert 'Params: 4.873M' in capsys.readouterr().out
