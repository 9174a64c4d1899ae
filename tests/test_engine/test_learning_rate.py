"""Learning rates for another batch size: the warning, and --auto-scale-lr."""

import re

import pytest
from helpers import ROOT
from mmengine.runner import Runner

from rtm_kd.apis.train import train
from rtm_kd.utils import load_config

RECIPES = sorted((ROOT / 'configs').rglob('kd_*_coco.py'))


@pytest.fixture
def options(options):
    """A batch of four images and a learning rate of 0.001 meant for eight."""
    del options['teacher_ckpt']
    return {**options, 'max_epochs': 1, 'auto_scale_lr': dict(base_batch_size=8, enable=False)}


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr(Runner, 'train', lambda self: None)


def highest_lr(runner):
    return runner.optim_wrapper.optimizer.param_groups[0]['initial_lr']


def warnings(capsys):
    said = capsys.readouterr()
    return re.findall(r'batch of .* instead of .*', said.out + said.err)


def test_the_learning_rate_is_scaled_once_and_not_again_after_resuming(
    plain_config, options, tmp_path, capsys
):
    call = dict(work_dir=str(tmp_path), auto_scale_lr=True)
    runner = train(plain_config, cfg_options=options, **call)
    assert highest_lr(runner) == pytest.approx(0.001 / 2)
    assert load_config(str(next(tmp_path.glob('*.py')))).auto_scale_lr.enable is True
    for auto_scale_lr in (True, False):
        call.update(resume='auto', auto_scale_lr=auto_scale_lr)
        options['max_epochs'] += 1
        runner = train(plain_config, cfg_options=options, **call)
        assert runner.epoch == options['max_epochs']
        assert highest_lr(runner) == pytest.approx(0.001 / 2)
    assert not warnings(capsys)


def test_a_batch_size_that_does_not_fit_the_learning_rate_gives_one_warning(
    plain_config, options, tmp_path, capsys, untrained
):
    train(plain_config, work_dir=str(tmp_path), cfg_options=options)
    assert warnings(capsys) == [
        'batch of 4 instead of 8: the learning rate, 0.001, is for '
        'auto_scale_lr.base_batch_size=8 images a step; --auto-scale-lr multiplies it by 0.5, or '
        'set base_lr=0.0005'
    ]


@pytest.mark.parametrize(
    'changes, processes',
    [
        (dict(train_batch_size_per_gpu=2), 4),
        ({'optim_wrapper.accumulative_counts': 2}, 1),
        (dict(base_lr=0.0002), 1),
        ({'optim_wrapper.optimizer.lr': 0.0002}, 1),
        (dict(auto_scale_lr=None), 1),
        (dict(resume=True), 1),
    ],
)
def test_there_is_no_warning_where_the_learning_rate_fits(
    plain_config, options, tmp_path, capsys, untrained, monkeypatch, changes, processes
):
    monkeypatch.setattr(Runner, 'world_size', processes)
    train(plain_config, work_dir=str(tmp_path), cfg_options={**options, **changes})
    assert not warnings(capsys)


def test_accumulated_batches_count_as_one_batch(plain_config, options, tmp_path):
    options['optim_wrapper.accumulative_counts'] = 2
    runner = train(plain_config, str(tmp_path), cfg_options=options, auto_scale_lr=True)
    assert highest_lr(runner) == pytest.approx(0.001)


@pytest.mark.parametrize(
    'value, message',
    [
        (None, 'does not give the images a step.*auto_scale_lr=dict'),
        (dict(enable=False), 'does not give the images a step'),
        (dict(base_batch_size=0), r'auto_scale_lr\.base_batch_size=0; it has to be an integer'),
        (16, 'auto_scale_lr=16, which is not a dict'),
    ],
)
def test_a_config_that_cannot_be_scaled_is_refused(plain_config, options, tmp_path, value, message):
    options['auto_scale_lr'] = value
    with pytest.raises(ValueError, match=message):
        train(plain_config, str(tmp_path / 'run'), cfg_options=options, auto_scale_lr=True)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('config', RECIPES, ids=[path.stem for path in RECIPES])
def test_each_recipe_has_its_batch_size_and_its_whole_schedule_is_scaled(config):
    """MMEngine scales only the base learning rate: an absolute eta_min would stay."""
    # More images per process change the batch, not the recipe's base batch size.
    cfg = load_config(str(config), dict(train_batch_size_per_gpu=3))
    processes, images = map(
        int, re.search(r"_base_ = '.*_(\d+)xb(\d+)-", config.read_text()).groups()
    )
    assert cfg.auto_scale_lr == dict(base_batch_size=processes * images, enable=False)
    assert not any('eta_min' in schedule for schedule in cfg.get('param_scheduler') or [])
