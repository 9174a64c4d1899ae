"""Ctrl-C: one line, status 130, and no half-written files."""

import os
import signal
import sys

import cv2
import numpy as np
import pytest
from helpers import KD_CONFIG, ROOT, as_arguments, run_tool, tool
from mmengine.config import Config

from rtm_kd.compat import __main__ as opt_in

STEP = 'rtm_kd.models.algorithms.fpn_teacher_distill.FpnTeacherDistill.loss'
VOC = """<annotation><filename>a.png</filename>
<size><width>9</width><height>9</height><depth>3</depth></size>
<object><name>cell</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"""


@pytest.fixture
def ctrl_c(monkeypatch, capsys):
    """Press Ctrl-C when a function is called, and return the program's output."""

    def press(function, program):
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
            patched.setattr(function, lambda *_, **__: signal.raise_signal(signal.SIGINT))
            program()
        assert ended.value.code == 130
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith('stopped')
        return said

    return press


def files(folder):
    return sorted(path for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('name', ['train.py', 'check.py'])
def test_ctrl_c_in_a_step_is_one_line(name, ctrl_c, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = ctrl_c(STEP, lambda: run_tool(name, KD_CONFIG, '--cfg-options', *as_arguments(options)))
    assert ('--resume' in said) == (name == 'train.py')
    assert not [path for path in files(tmp_path) if path.suffix in ('.part', '.pth')]


def test_ctrl_c_while_the_config_is_formatted_is_one_line(ctrl_c, options, tmp_path):
    arguments = [KD_CONFIG, '--work-dir', tmp_path, '--cfg-options', *as_arguments(options)]
    moment = 'mmengine.config.config.FormatCode'
    assert '--resume' in ctrl_c(moment, lambda: run_tool('train.py', *arguments))


@pytest.mark.parametrize('raised', [KeyboardInterrupt(), SystemExit(143), SyntaxError('a')])
def test_only_formatting_errors_are_reported_as_such(raised, monkeypatch):
    def format_code(*_, **__):
        raise raised

    monkeypatch.setattr('mmengine.config.config.FormatCode', format_code)
    with pytest.raises(type(raised)):
        Config(dict(a=1)).dump()


TOOLS = sorted(path for path in (ROOT / 'tools').rglob('*.py') if path.parent.name != 'benchmarks')


@pytest.mark.parametrize('path', TOOLS, ids=lambda path: path.name)
def test_ctrl_c_while_importing_is_one_line(path, tmp_path):
    (tmp_path / 'torch.py').write_text('import signal\nsignal.raise_signal(signal.SIGINT)\n')
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    done = tool(path.relative_to(ROOT / 'tools'), '--help', env=environment)
    assert done.returncode == 130
    assert done.stderr.strip() == 'stopped'


def test_distill_resumes_after_ctrl_c(ctrl_c, data_root, distilled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ['--data-root', data_root, '--student', 'tiny', '--teacher', 's', '--train-teacher']
    arguments += ['--epochs', 2, '--img-size', 64, '--num-workers', 0, '--name', 'mine']
    moment = 'mmengine.runner.loops.EpochBasedTrainLoop.run_iter'
    said = ctrl_c(moment, lambda: run_tool('distill.py', *arguments))
    assert said == 'stopped; the same command with --resume continues'


def test_ctrl_c_while_testing_leaves_no_predictions(ctrl_c, distilled, options, tmp_path):
    arguments = [KD_CONFIG, distilled / 'epoch_3.pth', '--work-dir', tmp_path / 'test']
    arguments += ['--out', tmp_path / 'out.pkl', '--cfg-options', *as_arguments(options)]
    ctrl_c('mmengine.runner.loops.TestLoop.run_iter', lambda: run_tool('test.py', *arguments))
    assert not (tmp_path / 'out.pkl').exists()


@pytest.fixture
def dataset(tmp_path):
    """An image with a box, in YOLO and VOC format."""
    for folder in ('images', 'labels', 'JPEGImages', 'Annotations'):
        (tmp_path / 'data' / folder).mkdir(parents=True)
    for folder in ('images', 'JPEGImages'):
        cv2.imwrite(str(tmp_path / 'data' / folder / 'a.png'), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / 'data/labels/a.txt').write_text('0 0.5 0.5 0.4 0.4')
    (tmp_path / 'data/classes.txt').write_text('cell')
    (tmp_path / 'data/Annotations/a.xml').write_text(VOC)
    return tmp_path / 'data'


@pytest.mark.parametrize(
    'name, arguments',
    [
        ('analysis_tools/report.py', ['{distilled}', '--images', '0', '--out', '{out}/page.html']),
        (
            'model_converters/convert_kd_ckpt_to_student.py',
            ['{distilled}/epoch_3.pth', '--out-path', '{out}'],
        ),
        ('dataset_converters/yolo2coco.py', ['{dataset}', '{out}']),
        ('dataset_converters/voc2coco.py', ['{dataset}', '{out}']),
    ],
)
def test_ctrl_c_while_writing_leaves_no_file(name, arguments, ctrl_c, distilled, dataset, tmp_path):
    folders = dict(distilled=distilled, dataset=dataset, out=tmp_path / 'out')
    arguments = [argument.format(**folders) for argument in arguments]
    # Just before the finished file is renamed to its final path.
    ctrl_c('os.replace', lambda: run_tool(name, *arguments))
    assert files(tmp_path / 'out') == []
    run_tool(name, *arguments)
    assert len(files(tmp_path / 'out')) == 1


def test_ctrl_c_in_the_opt_in_is_one_line(ctrl_c, tmp_path, monkeypatch):
    path = tmp_path / 'rtm_kd_compat.pth'
    monkeypatch.setattr(opt_in, 'pth_file', lambda: path)
    monkeypatch.setattr(sys, 'argv', ['rtm_kd.compat', 'enable'])
    ctrl_c('os.replace', opt_in.main)
    assert files(tmp_path) == []
    opt_in.main()
    assert files(tmp_path) == [path]
