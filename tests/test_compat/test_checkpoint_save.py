import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub

from rtm_kd.apis.train import train
from rtm_kd.compat import checkpoint_save


def test_a_kill_while_writing_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / 'epoch_1.pth'
    target.write_bytes(b'old')
    # Killed between the last byte and the rename.
    program = f"""
import os, signal
import rtm_kd
from mmengine.fileio import LocalBackend
os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
LocalBackend().put(b'new', {str(target)!r})
"""
    killed = subprocess.run([sys.executable, '-W', 'ignore', '-c', program], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_bytes() == b'old'

    LocalBackend().put(b'new', target)
    assert target.read_bytes() == b'new'
    assert os.listdir(tmp_path) == ['epoch_1.pth']


def test_a_full_disk_leaves_the_old_file_and_is_reported_with_its_path(tmp_path, monkeypatch):
    target = tmp_path / 'epoch_1.pth'
    target.write_bytes(b'old')

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r"can't be written \(No space left.*epoch_1\.pth"):
        LocalBackend().put(b'new', target)
    assert target.read_bytes() == b'old'
    assert os.listdir(tmp_path) == ['epoch_1.pth']


def test_text_is_written_atomically_too(tmp_path):
    LocalBackend().put_text('grün', tmp_path / 'new' / 'a.txt')
    assert (tmp_path / 'new' / 'a.txt').read_text(encoding='utf-8') == 'grün'


def test_ranks_that_write_one_file_do_not_disturb_each_other(tmp_path, monkeypatch):
    """MMEngine's LoggerHook writes the metrics of a test from every rank."""
    target = tmp_path / 'metrics.json'
    replace = os.replace

    def the_other_rank_is_faster(part, path):
        monkeypatch.setattr(os, 'replace', replace)
        monkeypatch.setattr(checkpoint_save, 'get_rank', lambda: 1)
        LocalBackend().put_text('{"mAP": 0.4}', path)
        replace(part, path)

    monkeypatch.setattr(os, 'replace', the_other_rank_is_faster)
    LocalBackend().put_text('{"mAP": 0.4}', target)
    assert target.read_text() == '{"mAP": 0.4}'
    assert os.listdir(tmp_path) == ['metrics.json']


def test_the_only_checkpoint_is_deleted_after_the_next_is_written(
    plain_config, options, tmp_path, monkeypatch
):
    """With max_keep_ckpts=1, and likewise for the best checkpoint."""
    options.pop('teacher_ckpt')
    options.update({'max_epochs': 2, 'val_interval': 1, 'val_interval_stage2': 1})
    options.update({'default_hooks.checkpoint.max_keep_ckpts': 1})
    options.update({'default_hooks.checkpoint.save_best': 'coco/bbox_mAP'})
    # The second epoch becomes the best one.
    monkeypatch.setattr(
        CheckpointHook, 'rule_map', {**CheckpointHook.rule_map, 'greater': lambda x, y: True}
    )
    seen = []

    def put(self, obj, filepath):
        if str(filepath).endswith('.pth'):
            there = sorted(path.name for path in tmp_path.glob('*.pth'))
            seen.append((os.path.basename(filepath), there))
        checkpoint_save._put(self, obj, filepath)

    monkeypatch.setattr(LocalBackend, 'put', put)
    train(plain_config, work_dir=str(tmp_path), cfg_options=options)

    first, best = 'epoch_1.pth', 'best_coco_bbox_mAP_epoch_1.pth'
    # MMEngine writes an epoch's checkpoint a second time if it is the best.
    assert seen == [
        ('epoch_1.pth', []),
        (best, [first]),
        (first, [best, first]),
        ('epoch_2.pth', [best, first]),
        ('best_coco_bbox_mAP_epoch_2.pth', [best, 'epoch_2.pth']),
        ('epoch_2.pth', [best, 'best_coco_bbox_mAP_epoch_2.pth', 'epoch_2.pth']),
    ]
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == [
        'best.pth',
        'best_coco_bbox_mAP_epoch_2.pth',
        'epoch_2.pth',
    ]
    assert torch.load(tmp_path / 'epoch_2.pth', weights_only=False)['meta']['epoch'] == 2


def resumed(work_dir, save_best='mAP', **info):
    """A CheckpointHook in the state of a run resumed from a checkpoint with this information."""
    hub = MessageHub('resumed')
    hub.runtime_info.update(info)
    logger = SimpleNamespace(info=lambda text: None, warning=lambda text: None)
    runner = SimpleNamespace(
        work_dir=str(work_dir), message_hub=hub, logger=logger, epoch=2, iter=8
    )
    runner.save_checkpoint = lambda folder, filename, *args, **kwargs: torch.save(
        {}, os.path.join(folder, filename)
    )
    hook = CheckpointHook(save_best=save_best, rule='greater', max_keep_ckpts=1)
    hook.before_train(runner)
    return hook, runner


@pytest.mark.parametrize('best', ['', '.', '..', 'vis_data', 'best_of_all', 'notes.txt', 7, None])
def test_resuming_deletes_nothing_that_a_checkpoint_names(tmp_path, monkeypatch, best):
    work_dir, other = tmp_path / 'run', tmp_path / 'other'
    (tmp_path / 'here').mkdir()
    # So that a bug can delete nothing outside: relative paths stay in tmp_path.
    monkeypatch.chdir(tmp_path / 'here')
    for folder in (work_dir / 'vis_data', work_dir / 'best_of_all', other):
        folder.mkdir(parents=True)
    for file in (other / 'notes.txt', work_dir / 'notes.txt', work_dir / 'epoch_a.pth'):
        file.touch()
    before = {*tmp_path.rglob('*')}
    for path in (best, os.path.join(str(other), str(best)), os.path.join(str(work_dir), str(best))):
        hook, runner = resumed(
            work_dir, best_ckpt=path, best_score=0.1, keep_ckpt_ids=[1, 'a', 'a/../../other']
        )
        assert [*hook.keep_ckpt_ids] == [1]
        hook.after_val_epoch(runner, dict(mAP=0.2))
        assert before <= {*tmp_path.rglob('*')}


@pytest.mark.parametrize('save_best, key', [('mAP', ''), (['mAP', 'mAP_50'], '_mAP')])
def test_a_copied_work_dir_keeps_its_own_best(tmp_path, save_best, key):
    original, copy = tmp_path / 'original', tmp_path / 'copy'
    for folder in (original, copy):
        folder.mkdir()
        (folder / 'best_mAP_epoch_1.pth').touch()
    info = {f'best_ckpt{key}': str(original / 'best_mAP_epoch_1.pth'), f'best_score{key}': 0.1}
    hook, runner = resumed(copy, save_best, **info)
    # In a moved work dir the best checkpoint is found at its new path.
    assert runner.message_hub.get_info(f'best_ckpt{key}') == str(copy / 'best_mAP_epoch_1.pth')
    hook.after_val_epoch(runner, dict(mAP=0.2, mAP_50=0.3))
    assert [path.name for path in original.iterdir()] == ['best_mAP_epoch_1.pth']
    assert not (copy / 'best_mAP_epoch_1.pth').exists()
    assert (copy / 'best_mAP_epoch_2.pth').exists()


def test_a_best_checkpoint_outside_the_work_dir_is_ignored(tmp_path):
    hook, runner = resumed(tmp_path, best_ckpt='/elsewhere/best_mAP_epoch_1.pth', best_score=0.9)
    hook.after_val_epoch(runner, dict(mAP=0.2))
    assert (tmp_path / 'best_mAP_epoch_2.pth').exists()
    assert runner.message_hub.get_info('best_score') == 0.2
