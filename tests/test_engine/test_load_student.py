import pytest
import torch
from mmengine.registry import DefaultScope

from rtm_kd.apis.train import train
from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config


@pytest.mark.parametrize('side', ['plain_config', 'kd_config'])
def test_training_starts_from_a_published_distilled_checkpoint(side, request, options, tmp_path):
    """MMRazor's file holds the student together with teacher and connectors."""
    config = request.getfixturevalue(side)
    if side == 'plain_config':
        options.pop('teacher_ckpt')
    own = {name: value for name, value in options.items() if name != 'teacher_ckpt'}
    plain = load_config(request.getfixturevalue('plain_config'), own)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        weights = MODELS.build(plain.model).state_dict()
    content = {f'architecture.{name}': value for name, value in weights.items()}
    content |= {f'teacher.{name}': value + 1 for name, value in weights.items()}
    torch.save(dict(state_dict=content, meta={}), tmp_path / 'mmrazor.pth')
    runner = train(
        config,
        work_dir=str(tmp_path / 'run'),
        cfg_options={
            **options,
            'load_from': str(tmp_path / 'mmrazor.pth'),
            'max_epochs': 1,
            'num_epochs_stage2': 0,
            'base_lr': 0.0,
        },
    )
    model = getattr(runner.model, 'student', runner.model)
    trained = dict(model.named_parameters())
    assert all(torch.equal(weights[name], value) for name, value in trained.items())
