"""Comparisons: pairs of runs, their report, and resuming."""

import copy
import html.parser
import io
import json
import os
import re
import runpy
import shutil
import signal
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import KD_CONFIG, ROOT, as_arguments, make_options
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from scipy.stats import ttest_rel

from rtm_kd.apis.train import train
from rtm_kd.comparison import compare as compare_module
from rtm_kd.comparison import evaluation
from rtm_kd.comparison.compare import compare
from rtm_kd.comparison.evaluation import average_precisions, evaluate
from rtm_kd.comparison.records import RunRecords, read_run
from rtm_kd.comparison.report import html_page, terminal_table
from rtm_kd.comparison.sides import (
    SIDES,
    differences,
    fingerprint,
    paired_configs,
    teacher_config,
)
from rtm_kd.comparison.summary import paired_difference, summarise
from rtm_kd.engine.hooks import RunRecordHook
from rtm_kd.models.distillers import ConfigurableDistiller
from rtm_kd.registry import HOOKS, MODELS
from rtm_kd.utils import load_config
from rtm_kd.utils.files import locked

EPOCHS = 4


class Terminal(io.StringIO):
    """A stderr that presses Ctrl-C when the first epoch has started."""

    def write(self, text):
        if 'epoch 1/' in text:
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(text)


@pytest.fixture(scope='module')
def compared(data_root, tmp_path_factory):
    """One pair of runs, stopped by Ctrl-C in the first, and resumed."""
    folder = tmp_path_factory.mktemp('compared')
    options = make_options(data_root)
    options.update(max_epochs=EPOCHS, num_epochs_stage2=2, val_interval=2)
    command = [KD_CONFIG, '--seeds', '1', '--work-dir', str(folder), '--cfg-options']
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, 'argv', ['compare.py', *command, *as_arguments(options)])
        patch.setattr(sys, 'stderr', Terminal())
        try:
            runpy.run_path(str(ROOT / 'tools/compare.py'), run_name='__main__')
        finally:
            error = sys.stderr.getvalue()
    stopped = dict(
        status=ended.value.code,
        error=error,
        files=[path.relative_to(folder).as_posix() for path in folder.rglob('*')],
    )
    progress = io.StringIO()
    # As strings, as the command line passes them.
    options = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
    summary = compare(
        KD_CONFIG, seeds=1, work_dir=str(folder), cfg_options=options, stream=progress
    )
    return dict(
        folder=folder,
        options=options,
        stopped=stopped,
        summary=summary,
        progress=progress.getvalue(),
    )


def again(compared, kd_config, folder=None, **changes):
    arguments = dict(seeds=1, work_dir=str(folder or compared['folder']))
    options = {**compared['options'], **changes.pop('cfg_options', {})}
    return compare(kd_config, cfg_options=options, **{**arguments, **changes})


# ----------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    'plain, distilled',
    [
        ([0.40, 0.41, 0.39], [0.42, 0.44, 0.40]),
        ([0.30, 0.31], [0.29, 0.32]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], [0.09, 0.15, 0.28, 0.33, 0.41]),
    ],
)
def test_the_interval_equals_scipys_paired_t_test(plain, distilled):
    difference = paired_difference(plain, distilled)
    interval = ttest_rel(distilled, plain).confidence_interval(0.95)
    assert difference.mean == pytest.approx(np.mean(distilled) - np.mean(plain))
    assert (difference.low, difference.high) == pytest.approx(interval)


def test_the_interval_matches_tabulated_values():
    difference = paired_difference([0, 0, 0], [1, 2, 3])
    # Mean 2, standard deviation 1, t of two degrees of freedom 4.302653.
    half = 4.302653 / 3**0.5
    assert (difference.low, difference.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    # A class that is found in no run.
    assert paired_difference([0, 0], [0, 0]).low == 0


@pytest.mark.parametrize(
    'distilled, verdict',
    [
        ([0.45, 0.46, 0.44], 'gain'),
        ([0.35, 0.34, 0.36], 'loss'),
        ([0.45, 0.40, 0.36], 'none'),
        ([0.40, 0.40, 0.40], 'none'),
        ([0.45], 'unknown'),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(distilled, verdict):
    assert paired_difference([0.4] * len(distilled), distilled).verdict == verdict


def test_an_incomplete_pair_is_refused():
    with pytest.raises(ValueError, match='cannot pair 2 values with 1'):
        paired_difference([0.1, 0.2], [0.1])


# ----------------------------------------------------------------- two sides


@pytest.fixture
def configs(kd_config, options):
    return paired_configs(load_config(kd_config, options))


def test_both_sides_differ_only_in_the_distillation(configs, plain_config, options):
    plain, distilled = configs['plain'], configs['distilled']
    for key in distilled:
        if key not in ('model', 'custom_hooks'):
            assert plain[key] == distilled[key], key
    assert plain.model == distilled.model.architecture
    detaching = [hook for hook in distilled.custom_hooks if 'detach_epoch' in hook]
    assert len(detaching) == 1
    assert [*plain.custom_hooks] == [h for h in distilled.custom_hooks if h not in detaching]
    # The plain side is the student's own config.
    options.pop('teacher_ckpt')
    assert plain.model == load_config(plain_config, options).model


def test_the_optimizer_finds_the_students_parameters_under_their_own_names(kd_config, options):
    cfg = load_config(kd_config, options)
    cfg.optim_wrapper.paramwise_cfg.custom_keys = {'architecture.backbone': dict(lr_mult=0.1)}
    configs = paired_configs(cfg)
    keys = {side: [*configs[side].optim_wrapper.paramwise_cfg.custom_keys] for side in SIDES}
    assert keys == dict(plain=['backbone'], distilled=['architecture.backbone'])


def test_a_comparison_resumes_and_finds_its_checkpoints_whatever_the_config_saves(
    kd_config, options
):
    for name, value in dict(save_optimizer=False, out_dir='elsewhere', save_last=False).items():
        options[f'default_hooks.checkpoint.{name}'] = value
    for cfg in paired_configs(load_config(kd_config, options)).values():
        hook = HOOKS.build(cfg.default_hooks.checkpoint)
        assert (hook.save_optimizer, hook.out_dir, hook.save_last) == (True, None, True)


def drawing_distiller(self, student_records, teacher_records, *args):
    # As in a loss with random masks.
    noise = torch.rand(7).sum() + float(np.random.rand(3).sum())
    feature = next(iter(student_records.values()))[0]
    return dict(loss_noise=noise * feature.mean())


@pytest.mark.parametrize('num_workers', [0, 2])
def test_both_sides_begin_with_the_same_student_and_see_the_same_images(
    kd_config, options, tmp_path, monkeypatch, num_workers
):
    monkeypatch.setattr(ConfigurableDistiller, 'compute_distill_losses', drawing_distiller)
    options.update(max_epochs=2, num_epochs_stage2=1, train_num_workers=num_workers)
    seen = {}

    def remember(hook, runner, batch_idx, data_batch=None):
        student = getattr(runner.model, 'architecture', runner.model)
        weights = {name: value.clone() for name, value in student.state_dict().items()}
        seen.setdefault(side, []).append((weights, data_batch))

    monkeypatch.setattr(RunRecordHook, 'before_train_iter', remember)
    for side, cfg in paired_configs(load_config(kd_config, options)).items():
        cfg.dump(str(tmp_path / f'{side}.py'))
        train(str(tmp_path / f'{side}.py'), str(tmp_path / side))

    assert len(seen['plain']) == len(seen['distilled']) == 6
    weights = [seen[side][0][0] for side in SIDES]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    for (_, plain), (_, distilled) in zip(seen['plain'], seen['distilled']):
        assert torch.equal(plain['inputs'], distilled['inputs'])
        boxes = [batch['data_samples']['bboxes_labels'] for batch in (plain, distilled)]
        assert torch.equal(*boxes)
    # The check is not trivial: the images are random.
    first, second = (seen['plain'][i][1]['inputs'] for i in (0, 3))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda cfg: cfg.pop('val_dataloader'), 'no val_dataloader'),
        (lambda cfg: cfg.train_cfg.pop('max_epochs'), 'does not train by epochs'),
        (lambda cfg: cfg.custom_hooks.append(dict(type='EarlyStoppingHook')), 'EarlyStoppingHook'),
    ],
)
def test_a_config_that_cannot_be_compared_is_refused(kd_config, options, change, message):
    cfg = load_config(kd_config, options)
    change(cfg)
    with pytest.raises(ValueError, match=message):
        paired_configs(cfg)


# ----------------------------------------------------------------- evaluation


def test_average_precision_is_exact_and_none_without_boxes(tmp_path):
    box = [0.0, 0.0, 20.0, 20.0]
    annotated = dict(
        images=[dict(id=i, width=64, height=64) for i in (0, 1)],
        annotations=[
            dict(id=i + 1, image_id=i, category_id=0, bbox=box, area=400.0, iscrowd=0)
            for i in (0, 1)
        ],
        categories=[dict(id=0, name='disc'), dict(id=1, name='square')],
    )
    (tmp_path / 'annotations.json').write_text(json.dumps(annotated))

    def measured(detections):
        metric = CocoMetric(
            str(tmp_path / 'annotations.json'), outfile_prefix=str(tmp_path / 'one')
        )
        # State of the metric after evaluating.
        metric.cat_ids, metric.img_ids = [0, 1], [0, 1]
        (tmp_path / 'one.bbox.json').write_text(json.dumps(detections))
        return average_precisions(metric, 'bbox')

    result = measured([dict(image_id=0, category_id=0, bbox=box, score=0.9)])
    # One of two found: full precision up to recall 0.5, at 51 of 101 steps.
    assert result['mAP'] == result['mAP_s'] == pytest.approx(51 / 101)
    assert result['mAP_l'] is None
    assert result['classes'] == {'disc': pytest.approx(51 / 101), 'square': None}
    assert measured([])['mAP'] == 0


@pytest.fixture
def teacher(configs, tmp_path):
    """The teacher's config, and a checkpoint of its initial weights."""
    configs['distilled'].model.teacher_ckpt = 'somewhere.pth'
    cfg, reason = teacher_config(configs)
    assert reason == ''
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg.model))
    path = tmp_path / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return cfg, path


def test_the_teacher_is_evaluated_on_the_students_images(teacher, tmp_path):
    cfg, path = teacher
    result = evaluate(cfg, str(path), 'val', str(tmp_path / 'run'))
    assert result['images'] == 12
    assert result['metrics']['bbox'].keys() >= {'mAP', 'mAP_s', 'classes'}
    assert [*result['metrics']['bbox']['classes']] == ['disc', 'square']


def test_a_teacher_of_other_classes_is_not_measured_and_the_reason_is_given(
    teacher, configs, tmp_path
):
    cfg, path = teacher
    content = torch.load(path)
    head = 'bbox_head.head_module.rtm_cls.0.'
    others = {name: value for name, value in content['state_dict'].items()}
    others[head + 'bias'] = torch.zeros(80)
    torch.save(dict(state_dict=others), path)
    with pytest.raises(ValueError, match=r'rtm_cls.0.bias is \(80,\), expected \(2,\)'):
        evaluate(cfg, str(path), 'val', str(tmp_path / 'run'))
    content['meta'] = dict(dataset_meta=dict(classes=('cat', 'dog')))
    torch.save(content, path)
    with pytest.raises(ValueError, match='learned the classes cat, dog'):
        evaluate(cfg, str(path), 'val', str(tmp_path / 'run'))
    configs['distilled'].model.teacher_ckpt = 'random'
    assert teacher_config(configs) == (None, 'its weights are random')


@pytest.mark.parametrize(
    'test, changes, message',
    [
        (True, {'test_evaluator': dict(type='mmdet.CocoMetric', format_only=True)}, 'format_only'),
        (False, {'val_evaluator': dict(type='mmdet.VOCMetric')}, 'a CocoMetric to evaluate with'),
        (True, {'test_dataloader': None}, 'no test_dataloader'),
    ],
)
def test_data_that_cannot_be_evaluated_are_refused_before_the_training(
    kd_config, options, tmp_path, test, changes, message
):
    work_dir = tmp_path / 'run'
    with pytest.raises(ValueError, match=message):
        compare(kd_config, work_dir=str(work_dir), test=test, cfg_options={**options, **changes})
    assert not work_dir.exists()


def test_annotations_without_objects_are_refused(configs, tmp_path, monkeypatch):
    metric = CocoMetric.__new__(CocoMetric)
    metric.metrics = ['bbox']
    runner = SimpleNamespace(
        test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={})),
        test_evaluator=SimpleNamespace(metrics=[metric]),
        test=lambda: None,
    )
    monkeypatch.setattr(evaluation, 'build_test_runner', lambda *_: runner)
    monkeypatch.setattr(evaluation, 'read_checkpoint', lambda _: dict(state_dict={}))
    monkeypatch.setattr(evaluation, 'average_precisions', lambda *_: dict(mAP=None))
    with pytest.raises(ValueError, match='val annotations have no object'):
        evaluate(configs['plain'], 'a.pth', 'val', str(tmp_path))


def test_an_evaluation_without_detections_is_left_out_of_the_curve():
    run = RunRecords(evaluations={1: {}, 2: {'coco/bbox_mAP': 0.1, 'coco/segm_mAP': 0.2}})
    assert run.curve('bbox') == [(2, 0.1)]


def test_corrected_test_annotations_are_noticed(configs, tmp_path):
    configs['distilled'].test_dataloader.dataset.ann_file = str(tmp_path / 'test.json')
    plans = []
    for content in ('one', 'other'):
        (tmp_path / 'test.json').write_text(content)
        plans.append(fingerprint(configs, False))
    assert differences(*plans) == [f'content of the test annotations {tmp_path}/test.json']
    configs['distilled'].pop('test_dataloader')
    assert not any('content of the test' in name for name in fingerprint(configs, False))


# ----------------------------------------------------------------- the whole


def test_ctrl_c_saves_a_checkpoint_and_leaves_no_process_running(compared):
    stopped = compared['stopped']
    assert stopped['status'] == 130
    assert 'the same command continues' in stopped['error'] and 'Traceback' not in stopped['error']
    assert 'seed_0/distilled/terminated.pth' in stopped['files']
    assert not any(name.startswith('seed_0/plain/') for name in stopped['files'])
    assert 'comparison.json' not in stopped['files']


def test_resumes_where_it_stopped_and_reports_it(compared):
    runs = {side: read_run(compared['folder'] / 'seed_0' / side, 'val') for side in SIDES}
    assert len(runs['distilled'].resumed) == 1 and runs['plain'].resumed == []
    assert [*runs['distilled'].epochs] == [*runs['plain'].epochs] == [*range(1, EPOCHS + 1)]
    after = runs['distilled'].resumed[0]
    notes = ' '.join(compared['summary'].notes)
    assert f'distilled: interrupted and resumed after iteration {after}' in notes


def test_runs_are_compared_by_the_evaluation_of_their_last_epoch(compared):
    folder, summary = compared['folder'], compared['summary']
    for side in SIDES:
        run = read_run(folder / 'seed_0' / side, 'val')
        assert max(run.evaluations) == EPOCHS
        rounded = run.evaluations[EPOCHS]['coco/bbox_mAP']
        values = getattr(summary.metrics[0], side).values
        assert values == [pytest.approx(rounded, abs=5.1e-4)]
        assert summary.curves[side]['0'][-1] == (EPOCHS, rounded)
    assert summary.pairing['same_first_weights']
    assert summary.verdict.kind == 'unknown'
    setting = summary.setting
    assert (setting['epochs'], setting['iterations']) == (EPOCHS, 3 * EPOCHS)
    assert (setting['train_images'], setting['evaluated_images']) == (12, 12)
    assert (setting['detach_epoch'], setting['batch_size']) == (EPOCHS - 2, 4)


def test_measures_what_each_side_costs(compared):
    costs = {row.name: row for row in compared['summary'].costs}
    assert all(row.plain.mean > 0 and row.distilled.mean > 0 for row in costs.values())
    # The student is the same, and the teacher is in no checkpoint.
    assert costs['student'].ratio == pytest.approx(1, abs=0.01)
    assert costs['checkpoint'].ratio == pytest.approx(1, abs=0.05)
    assert costs['checkpoint'].plain.mean > 2 * costs['student'].plain.mean


def test_shows_the_run_the_epoch_and_the_time_left(compared):
    lines = compared['progress'].splitlines()
    assert any(re.match(r'run 2/2 \(seed 0, plain\): epoch 1/4', line) for line in lines), lines
    assert any(re.search(r'about .* left, .* for all runs', line) for line in lines), lines
    assert not any('about 0.0 s left' in line for line in lines), lines
    assert sum('done, bbox mAP' in line for line in lines) == 2


def test_the_report_is_written_in_three_formats(compared):
    folder = compared['folder']
    written = json.loads((folder / 'comparison.json').read_text())
    # JSON has no tuples.
    assert written == json.loads(json.dumps(asdict(compared['summary'])))
    sentence = written['verdict']['sentence']
    assert sentence in (folder / 'comparison.md').read_text()
    assert sentence in (folder / 'comparison.html').read_text()


def test_finished_runs_are_not_repeated(compared, kd_config, monkeypatch):
    monkeypatch.setattr(compare_module, '_RUN', 'no_such_module')
    assert again(compared, kd_config) == compared['summary']


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            dict(cfg_options=dict(max_epochs=5)),
            'differs from this one in max_epochs: 4 -> 5.*--restart',
        ),
        (dict(cfg_options={'optim_wrapper.optimizer.lr': 0.5}), r'optimizer\.lr.*0\.5'),
        (dict(cfg_options=dict(teacher_ckpt='nowhere.pth')), 'no teacher_ckpt nowhere.pth'),
        (dict(seeds=0), '--seeds .*got 0'),
        (dict(cfg_options=dict(data_root='nowhere/')), 'nowhere/annotations'),
    ],
)
def test_a_work_dir_of_another_comparison_is_refused(compared, kd_config, changes, message):
    before = (compared['folder'] / 'comparison.json').read_bytes()
    with pytest.raises(ValueError, match=message):
        again(compared, kd_config, **changes)
    assert (compared['folder'] / 'comparison.json').read_bytes() == before


def test_a_changed_annotation_file_is_refused(compared, kd_config, data_root, tmp_path):
    shutil.copytree(compared['folder'], tmp_path / 'copy')
    plan = json.loads((tmp_path / 'copy/plan.json').read_text())
    name = next(name for name in plan if 'train annotations' in name)
    plan[name] = 'another digest'
    (tmp_path / 'copy/plan.json').write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=r'content of the train annotations .*train\.json'):
        again(compared, kd_config, tmp_path / 'copy')


def test_a_plain_detectors_config_is_refused(plain_config, options, tmp_path):
    options.pop('teacher_ckpt')
    with pytest.raises(ValueError, match=r'does not distil.*kd_student_teacher'):
        compare(plain_config, work_dir=str(tmp_path / 'run'), cfg_options=options)
    assert not (tmp_path / 'run').exists()


def test_runs_of_unknown_origin_are_refused(kd_config, options, tmp_path):
    (tmp_path / 'seed_0').mkdir()
    with pytest.raises(ValueError, match=r'seed_0, and no plan\.json'):
        compare(kd_config, work_dir=str(tmp_path), cfg_options=options)


def test_a_second_comparison_in_the_same_folder_is_refused(compared, kd_config):
    lock = locked(compared['folder'], '', inherited=True)
    with lock, pytest.raises(ValueError, match='another comparison is at'):
        again(compared, kd_config)


def test_a_run_that_fails_is_named_with_its_log(kd_config, options, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_module, '_RUN', 'no_such_module')
    with pytest.raises(ValueError, match=r'"seed 0, distilled" failed: .*no_such_module') as error:
        compare(kd_config, work_dir=str(tmp_path), cfg_options=options)
    log = re.search(r'the whole log is (\S+\.log)', str(error.value))[1]
    assert log == str(tmp_path / 'seed_0/distilled/run.log') and os.path.getsize(log) > 0


def test_sides_that_started_from_different_weights_are_refused(compared, kd_config, tmp_path):
    shutil.copytree(compared['folder'], tmp_path / 'copy')
    records = tmp_path / 'copy/seed_0/plain/records.jsonl'
    student = read_run(records.parent, 'val').student
    records.write_text(records.read_text().replace(student, 'another'))
    with pytest.raises(ValueError, match='did not begin with the same student'):
        again(compared, kd_config, tmp_path / 'copy')


def test_restart_removes_the_runs(compared, kd_config, tmp_path, monkeypatch):
    shutil.copytree(compared['folder'], tmp_path / 'copy')
    monkeypatch.setattr(compare_module, '_RUN', 'no_such_module')
    with pytest.raises(ValueError, match='no_such_module'):
        again(compared, kd_config, tmp_path / 'copy', restart=True, cfg_options=dict(max_epochs=5))
    assert not [*(tmp_path / 'copy').rglob('*.pth')]
    assert Config.fromfile(tmp_path / 'copy/plain.py').max_epochs == 5


@pytest.mark.parametrize('name', ['teacher', 'seed_1'])
def test_restart_removes_no_other_files(kd_config, tmp_path, options, name):
    mine = tmp_path / name / 'epoch_300.pth'
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(ValueError, match=rf'has {name}, and no plan\.json'):
        compare_module.compare(kd_config, 1, str(tmp_path), restart=True, cfg_options=options)
    assert mine.exists()


def test_restart_leaves_other_folders_alone(compared, kd_config, tmp_path, monkeypatch):
    shutil.copytree(compared['folder'], tmp_path / 'copy')
    (tmp_path / 'copy/seed_bank').mkdir()
    monkeypatch.setattr(compare_module, '_RUN', 'no_such_module')
    with pytest.raises(ValueError, match='no_such_module'):
        again(compared, kd_config, tmp_path / 'copy', restart=True)
    assert (tmp_path / 'copy/seed_bank').is_dir()


# ----------------------------------------------------------------- reports


CLASSES = ['disc', '<b>"square" & $x$</b>']


def fake_run(mAP, images='same', resumed=()):
    """Records of a run of two epochs."""
    begin = dict(begin=0, epoch=0, max_epochs=2, max_iters=6, train_images=12, student='same')
    epoch = dict(seconds=1.5, iters=3, memory=5 * 10**8)
    figures = dict(mAP=mAP, mAP_50=mAP + 0.2, mAP_75=mAP, mAP_s=None, mAP_m=mAP, mAP_l=mAP)
    figures['classes'] = {CLASSES[0]: mAP, CLASSES[1]: mAP / 2}
    return RunRecords(
        begins=[begin, *(dict(begin, begin=iteration) for iteration in resumed)],
        epochs={1: dict(epoch, images='first'), 2: dict(epoch, images=images)},
        evaluations={n: {'coco/bbox_mAP': round(mAP * n / 2, 3)} for n in (1, 2)},
        trained=dict(
            batch_size=4,
            checkpoint_bytes=8 * 10**7,
            student_bytes=2 * 10**7,
            machine='a machine',
            gpu=False,
            versions=dict(torch='2.0'),
        ),
        result=dict(metrics=dict(bbox=figures), images=12),
    )


def summary_of(plain, distilled, teacher=None, **changes):
    runs = dict(
        plain=[fake_run(mAP) for mAP in plain],
        distilled=[fake_run(mAP, **changes) for mAP in distilled],
    )
    figures = fake_run(teacher).result if teacher else None
    setting = dict(
        name='kd <config>',
        config='configs/kd.py',
        cfg_options='',
        work_dir='work_dirs/kd',
        split='val',
        amp=False,
        detach_epoch=1,
    )
    return summarise(runs, figures, 'its weights are random', setting)


@pytest.mark.parametrize(
    'distilled, sentence',
    [
        ([0.45, 0.46, 0.44], r'a gain of \+0\.050 \[\+0\.025, \+0\.075\] mAP over 3 seeds'),
        ([0.35, 0.34, 0.36], r'a measurable loss, -0\.050 \[-0\.075, -0\.025\]'),
        ([0.45, 0.40, 0.36], r'No measurable gain: \+0\.003 \['),
        ([0.45], r'\+0\.050 mAP with one seed'),
    ],
)
def test_the_verdict_is_one_sentence(distilled, sentence):
    summary = summary_of([0.4] * len(distilled), distilled)
    assert re.search(sentence, summary.verdict.sentence)
    assert summary.verdict.sentence in terminal_table(summary)


@pytest.mark.parametrize(
    'arguments, note',
    [
        (
            dict(teacher=0.39),
            'no more than the plain student with 0.400, so it has little to teach',
        ),
        (dict(teacher=None), 'not measured: its weights are random'),
        (dict(images='other'), 'did not get the same images with seed 0 \\(from epoch 2 on\\)'),
        (dict(resumed=[4]), 'Seed 1, distilled: interrupted and resumed after iteration 4'),
    ],
)
def test_doubts_about_the_figures_are_reported(arguments, note):
    notes = ' '.join(summary_of([0.4, 0.4], [0.41, 0.42], **arguments).notes)
    assert re.search(note, notes)


def test_a_teacher_within_the_spread_of_the_plain_runs_is_pointed_out():
    notes = ' '.join(summary_of([0.4, 0.44], [0.42, 0.41], teacher=0.43).notes)
    assert 'has 0.430 mAP' in notes
    assert 'hardly more than the plain student with 0.420 ± 0.028' in notes


@pytest.mark.parametrize('teacher', [0.5, 0.39])
def test_a_clear_gain_gives_no_caveat(teacher):
    assert summary_of([0.4, 0.4], [0.45, 0.451], teacher=teacher).notes == []


def test_no_verdict_is_given_if_neither_side_has_learned_anything():
    assert 'Neither side has learned' in summary_of([0.001] * 2, [0.002] * 2).notes[0]


def test_the_table_has_each_size_and_class():
    table = terminal_table(summary_of([0.40, 0.42], [0.45, 0.45], teacher=0.5))
    row = next(line for line in table.splitlines() if line.startswith('| mAP '))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    # Differences 0.05 and 0.03, t of one degree of freedom 12.706.
    interval = '+0.040 [-0.087, +0.167]'
    assert cells == ['mAP', '0.410 ± 0.014', '0.450 ± 0.000', interval, '0.500']
    for label in ('medium objects', 'large objects', *CLASSES, 'peak memory', 'training time'):
        assert f'| {label}' in table
    # There are no boxes of this size.
    assert 'small objects' not in table
    row = next(line for line in table.splitlines() if line.startswith('| seed 1 '))
    assert [cell.strip() for cell in row.strip('|').split('|')][1:] == ['0.420', '0.450', '+0.030']


class _Page(html.parser.HTMLParser):
    """Checks that elements are properly nested, and collects URLs that would be loaded."""

    VOID = ('meta', 'br', 'hr', 'img', 'input', 'link', 'col')

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ''

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ('src', 'href', 'xlink:href')]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize('seeds', [1, 3])
def test_the_page_is_well_formed_and_self_contained(seeds):
    text = html_page(summary_of([0.40, 0.42, 0.39][:seeds], [0.45, 0.45, 0.46][:seeds], 0.5))
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.tags.count('svg') == 3 and 'script' not in page.tags
    # References to parts of the same figure.
    assert all(link.startswith('#') for link in page.links)
    assert set(re.findall(r'url\((.)', text)) <= {'#'}
    assert not re.search(r'https?:|@import', text)
    assert CLASSES[1] in page.text and '<b>' not in text.replace('&lt;b&gt;', '')
    assert 'kd <config>' in page.text
    # Colours come only from the page's CSS, which also has a dark theme.
    assert not re.search(r'<svg.*#[0-9a-f]{6}.*</svg>', text)
    assert 'viewport' in text
