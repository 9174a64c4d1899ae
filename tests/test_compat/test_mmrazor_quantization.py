import pytest
from mmrazor.models import quantizers


@pytest.mark.parametrize(
    'before',
    [
        'import mmrazor',
        'try:\n    import mmrazor.models\nexcept ImportError:\n    pass',
    ],
    ids=['after mmrazor', 'after a failed mmrazor.models'],
)
def test_mmrazor_keeps_its_own_classes(run_python, before):
    output = run_python(
        before
        + """
import rtm_kd
import mmrazor.models, mmrazor.engine
from mmrazor.registry import HOOKS, MODELS
for name in ('ConvModuleConnector', 'NormConnector', 'ChannelWiseDivergence', 'FpnTeacherDistill'):
    for scope in ('mmrazor', 'rtm_kd'):
        for registry in (MODELS, rtm_kd.registry.MODELS):
            print(scope, registry.get(f'{scope}.{name}').__module__.split('.')[0])
    print('mmrazor', MODELS.get(name).__module__.split('.')[0])
    print('rtm_kd', rtm_kd.registry.MODELS.get(name).__module__.split('.')[0])
print('mmrazor', HOOKS.get('mmrazor.StopDistillHook').__module__.split('.')[0])
"""
    )

    pairs = [line.split() for line in output.splitlines() if line.startswith(('mmrazor', 'rtm_kd'))]
    assert len(pairs) == 4 * 6 + 1
    assert [pair for pair in pairs if pair[0] != pair[1]] == []


def test_quantization_is_refused_with_the_reason():
    with pytest.raises(NotImplementedError, match=r'quantizers\.NativeQuantizer.*torch 2\.0'):
        quantizers.NativeQuantizer(global_qconfig={})
