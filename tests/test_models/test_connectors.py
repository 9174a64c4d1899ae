import mmrazor.models as mmrazor_models
import pytest
import torch
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope

from rtm_kd.models import ConvModuleConnector, NormConnector

PKD_NORM = dict(type='BN', affine=False, track_running_stats=False)


def same_numbers(ours, theirs, feature):
    """Whether output, input gradient and weight gradients agree to 1e-6."""
    ours.load_state_dict(theirs.state_dict())
    results = []
    for module in (ours, theirs):
        x = feature.clone().requires_grad_()
        out = module(x)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append([out, x.grad, *(p.grad for p in module.parameters())])
    for own, other in zip(*results):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(in_channel=6, out_channel=8, bias=False, norm_cfg=PKD_NORM, act_cfg=None),
        dict(in_channel=6, out_channel=8),
        dict(in_channel=6, out_channel=8, kernel_size=3, padding=1, stride=2, groups=2),
        dict(in_channel=6, out_channel=4, norm_cfg=dict(type='BN'), order=('norm', 'act', 'conv')),
        dict(in_channel=6, out_channel=4, kernel_size=3, padding=1, padding_mode='reflect'),
    ],
)
def test_conv_module_connector_gives_mmrazors_numbers(kwargs):
    torch.manual_seed(0)
    same_numbers(
        ConvModuleConnector(**kwargs),
        mmrazor_models.ConvModuleConnector(**kwargs),
        torch.randn(2, 6, 8, 8),
    )


def test_conv_module_connector_takes_arguments_by_position_too():
    connector = ConvModuleConnector(6, 8, 3, 2, 1)
    assert connector(torch.randn(2, 6, 8, 8)).shape == (2, 8, 4, 4)
    with pytest.raises(ValueError, match='no in_channels; write in_channel'):
        ConvModuleConnector(in_channel=6, out_channel=8, in_channels=6)


@pytest.mark.parametrize('norm_cfg', [PKD_NORM, dict(type='BN'), dict(type='GN', num_groups=2)])
def test_norm_connector_gives_mmrazors_numbers(norm_cfg):
    torch.manual_seed(0)
    same_numbers(
        NormConnector(6, norm_cfg),
        mmrazor_models.NormConnector(6, norm_cfg),
        torch.randn(2, 6, 8, 8),
    )


def test_pkd_norm_gives_zero_mean_and_unit_variance_per_channel():
    out = NormConnector(3, PKD_NORM)(torch.randn(4, 3, 16, 16) * 7 + 5)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var((0, 2, 3), unbiased=False), torch.ones(3), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    'change, split',
    [
        (dict(), True),
        (dict(kernel_size=3, padding=1), True),
        (dict(norm_cfg=None), False),
        (dict(act_cfg=dict(type='ReLU')), False),
        (dict(order=('norm', 'conv', 'act')), False),
        (dict(kernel_size=3, padding=1, padding_mode='reflect'), False),
    ],
    ids=str,
)
def test_only_a_norm_in_last_place_is_split_off(change, split):
    cfg = dict(in_channel=6, out_channel=6, norm_cfg=PKD_NORM, act_cfg=None)
    connector = ConvModuleConnector(**{**cfg, **change})
    parts = connector.split_norm()
    assert (parts is not None) == split
    if split:
        feature = torch.randn(2, 6, 8, 8)
        before, norm = parts
        torch.testing.assert_close(norm(before(feature)), connector(feature))


def test_yolov5s_optimizer_takes_connectors_whose_norm_has_no_weight():
    """MMYOLO's optimizer constructors pass on the weight of every BatchNorm, even None."""
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
    connectors = torch.nn.ModuleList(
        [
            ConvModuleConnector(6, 8, bias=False, norm_cfg=PKD_NORM, act_cfg=None),
            NormConnector(8, PKD_NORM),
        ]
    )
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.get('mmyolo.YOLOv5OptimizerConstructor')
    with DefaultScope.overwrite_default_scope('mmyolo'):
        wrapper = constructor(cfg)(connectors)
    (weight,) = (p for group in wrapper.optimizer.param_groups for p in group['params'])
    assert weight is connectors[0].conv_module.conv.weight


@pytest.mark.parametrize('channels', [0, -3, 1.5, 'many'])
def test_channels_must_be_positive_integers(channels):
    with pytest.raises(ValueError, match=f'in_channels?.*{channels}'):
        ConvModuleConnector(channels, 8)
    with pytest.raises(ValueError, match=f'in_channels.*{channels}'):
        NormConnector(channels, PKD_NORM)
