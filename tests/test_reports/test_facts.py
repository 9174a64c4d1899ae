import pytest
from mmengine.config import Config

from rtm_kd.reports.facts import _settings


def test_the_classes_of_a_repeated_dataset_are_shown():
    inner = dict(type='CocoDataset', metainfo=dict(classes=('cat', 'dog')))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=inner))))
    assert _settings(cfg)['classes'] == 'cat, dog'


@pytest.mark.parametrize(
    'kind, mixed',
    [
        ('OptimWrapper', False),
        ('AmpOptimWrapper', True),
        ('mmengine.AmpOptimWrapper', True),
        # The wrapper that --amp sets on a CPU.
        ('rtm_kd.CpuAmpOptimWrapper', True),
    ],
)
def test_every_mixed_precision_wrapper_is_reported_as_such(kind, mixed):
    assert _settings(Config(dict(optim_wrapper=dict(type=kind))))['mixed precision'] is mixed
