"""The benchmark of training steps."""

import json

import benchmarks
import helpers
import pytest
from benchmarks import steps
from helpers import ROOT, as_arguments, run_tool

KD_CONFIG = str(ROOT / 'configs/kd_tiny_rtmdet_s_neck_300e_coco.py')


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    return benchmarks.benchmark(
        KD_CONFIG,
        size=64,
        batch=2,
        steps=1,
        warmup=0,
        variants=('plain', 'mmrazor', 'mmrazor stopped', 'rtm_kd', 'rtm_kd detached'),
        data_root=str(tmp_path_factory.mktemp('drawn') / 'data'),
    )


def test_reports_where_a_step_spends_its_time(report):
    results = report['results']
    runs_teacher = {name for name, result in results.items() if result['parts']['teacher'] > 0}
    # MMRazor's teacher keeps running after its hook has stopped distillation.
    assert runs_teacher == {'mmrazor', 'mmrazor stopped', 'rtm_kd'}
    compares = {name for name, result in results.items() if result['parts']['distillation'] > 0}
    assert compares == {'mmrazor', 'rtm_kd'}
    for result in results.values():
        for part in ('data', 'student', 'backward', 'optimizer', 'EMA'):
            assert result['parts'][part] > 0
        assert result['seconds'] >= sum(result['parts'][part] for part in benchmarks.PARTS)
        assert result['memory'] > 0


def test_the_teacher_is_in_no_checkpoint(report):
    results = report['results']
    assert results['rtm_kd']['checkpoint_ratio'] < 1.01
    assert results['rtm_kd detached']['checkpoint_ratio'] < 1.01
    assert results['mmrazor']['checkpoint_ratio'] > 1.5


def test_connectors_and_losses_take_half_the_memory_of_mmrazors():
    share = benchmarks.own_share(size=256, batch=16, steps=1)
    assert share['rtm_kd']['memory'] <= share['mmrazor']['memory'] / 2


def test_refuses_to_compare_different_images(monkeypatch, tmp_path):
    # A different seed at every call, so that variants get different batches.
    seeds = iter(range(100, 200))
    seed = steps.seed
    monkeypatch.setattr(steps, 'seed', lambda index: seed(next(seeds)))
    with pytest.raises(ValueError, match='were given different images'):
        benchmarks.benchmark(
            KD_CONFIG,
            size=64,
            batch=2,
            steps=1,
            variants=('plain', 'rtm_kd detached'),
            data_root=str(tmp_path / 'data'),
        )


def test_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match='fastest'):
        benchmarks.benchmark(KD_CONFIG, variants=('plain', 'fastest'))


def test_the_tool_prints_a_table_and_writes_the_figures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ['--size', 64, '--batch', 2, '--steps', 1, '--variants', 'plain', 'rtm_kd']
    printed = run_tool('benchmark.py', 'tiny-s', *arguments, '--json', 'figures.json')
    assert '| plain |' in printed and '| rtm_kd |' in printed
    results = json.loads((tmp_path / 'figures.json').read_text())['results']
    assert set(results) == {'plain', 'rtm_kd'}


def test_the_fast_paths_are_compared_with_the_reference(distilled, options):
    options.update(train_batch_size_per_gpu=1)
    arguments = ['--error', distilled / 'epoch_1.pth', '--cfg-options', *as_arguments(options)]
    printed = run_tool('benchmark.py', helpers.KD_CONFIG, *arguments)
    assert 'norm and divergence in one: loss mean' in printed


def test_every_format_of_a_detector_is_timed(distilled, options):
    pytest.importorskip('onnxruntime')
    arguments = ['--exported', distilled / 'epoch_3.pth', '--steps', 1]
    printed = run_tool(
        'benchmark.py', helpers.KD_CONFIG, *arguments, '--cfg-options', *as_arguments(options)
    )
    names = [line.split(':')[0] for line in printed.splitlines() if ', / pytorch: ' in line]
    assert names == ['pytorch', 'onnx', 'onnx half', 'torchscript', 'torchscript half']
