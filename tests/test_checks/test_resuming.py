"""Checks of --resume, made before the data are built."""

import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from mmengine.runner import Runner

from rtm_kd.apis.train import train
from rtm_kd.checks import annotations
from rtm_kd.compat.checkpoint_load import load
from rtm_kd.utils.checkpoint import convert_to_student, student_state_dict


@pytest.fixture
def no_data(monkeypatch):
    def build(*_, **__):
        raise AssertionError('the data were built')

    monkeypatch.setattr(Runner, 'build_dataloader', staticmethod(build))


def swap_meta(**values):
    return lambda content: content['meta'].update(values)


@pytest.mark.parametrize(
    'change, changes, message',
    [
        (lambda content: content.pop('optimizer'), {}, 'has no optimizer, as a training'),
        (lambda content: content.pop('meta'), {}, 'has no meta, as a training'),
        (lambda content: content.pop('message_hub'), {}, 'has no message_hub'),
        (lambda content: content.pop('param_schedulers'), {}, 'has no param_schedulers'),
        (swap_meta(epoch='1'), {}, r"meta\.epoch='1', which has to be an integer"),
        (swap_meta(iter=-3), {}, r'meta\.iter=-3, which has to be'),
        (swap_meta(samples_of_epoch=[]), {}, r'meta\.samples_of_epoch=\[\], which has'),
        (
            swap_meta(dataset_meta=dict(classes=('square', 'disc'))),
            {},
            r'differ first at label 0 \("square", "disc"\)',
        ),
        (
            swap_meta(dataset_meta=dict(classes=('disc', 'square', 'cone'))),
            {},
            r'is of 3 classes and the config of 2, which differ first at label 2 \("cone", none\)',
        ),
        (None, {'widen_factor': 0.5}, 'does not fit the run that is to be resumed'),
        (
            # Of the student without a teacher.
            lambda content: content.update(state_dict=student_state_dict(content['state_dict'])),
            {},
            'does not fit the run that is to be resumed',
        ),
        (
            None,
            {'optim_wrapper.optimizer': dict(type='SGD', lr=0.1, weight_decay=0.1, _delete_=True)},
            r'optimizer has .*betas.*the config, SGD, has .*momentum',
        ),
        (
            lambda content: content['optimizer'].update(param_groups=[]),
            {},
            r'has 0 groups of parameters, and that of the config \d',
        ),
        (
            lambda content: content['optimizer'].update(param_groups=4),
            {},
            'its optimizer is not the state of AdamW',
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    change, changes, message, distilled, kd_config, options, tmp_path, no_data
):
    path = distilled / 'epoch_1.pth'
    if change is not None:
        content = load(str(path))
        change(content)
        path = tmp_path / 'changed.pth'
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as refused:
        train(
            kd_config,
            work_dir=str(tmp_path / 'run'),
            resume=str(path),
            cfg_options={**options, **changes},
        )
    assert str(path) in str(refused.value)
    assert '\n' not in str(refused.value)
    assert not (tmp_path / 'run').exists()


def test_a_plain_run_resumes_neither_a_distillation_nor_its_best_checkpoint(
    distilled, plain_config, options, tmp_path, no_data
):
    del options['teacher_ckpt']
    path = str(distilled / 'epoch_1.pth')
    with pytest.raises(ValueError, match='it is the checkpoint of a distillation'):
        train(plain_config, str(tmp_path / 'run'), resume=path, cfg_options=options)
    best = str(convert_to_student(path, str(tmp_path)))
    with pytest.raises(ValueError, match=r'has no optimizer.*load_from='):
        train(plain_config, str(tmp_path / 'run'), resume=best, cfg_options=options)


def test_resuming_a_finished_run_reports_that_nothing_is_left(
    distilled, kd_config, options, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(annotations, 'print_log', lambda text, *_: said.append(text))
    train(
        kd_config,
        work_dir=str(tmp_path / 'run'),
        resume=str(distilled / 'epoch_3.pth'),
        cfg_options=options,
    )
    assert 'is at epoch 3 of max_epochs=3: there is nothing to train' in said[0]


HOLD = """
import sys, pathlib
sys.path.insert(0, {root!r})
from rtm_kd.utils.files import locked
with locked(pathlib.Path(sys.argv[1]), 'refused'):
    print('locked', flush=True)
    sys.stdin.read()
"""


def test_a_second_run_in_the_same_work_dir_is_refused(kd_config, options, tmp_path):
    command = [sys.executable, '-W', 'ignore', '-c', HOLD.format(root=str(ROOT)), str(tmp_path)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == 'locked\n'
        with pytest.raises(ValueError, match=f'another run is using {tmp_path}'):
            train(kd_config, work_dir=str(tmp_path), cfg_options=options)
        other.kill()
    # The lock ends with the process.
    options.update(max_epochs=1, num_epochs_stage2=0)
    assert train(kd_config, work_dir=str(tmp_path), cfg_options=options).epoch == 1
