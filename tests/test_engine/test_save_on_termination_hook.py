"""SIGTERM, torn checkpoints, and resuming inside an epoch."""

import logging
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from mmdet.datasets import AspectRatioBatchSampler
from mmengine.dataset import DefaultSampler
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from rtm_kd.apis.train import train
from rtm_kd.compat.checkpoint_load import load
from rtm_kd.engine.hooks import SaveOnTerminationHook
from rtm_kd.engine.hooks.save_on_termination_hook import SkipFirstSamples
from rtm_kd.utils.checkpoint import newest_checkpoint

ITERATIONS = 3  # per epoch


@pytest.fixture
def iterations(monkeypatch):
    """List of trained iterations; those in ``iterations.asked`` send the run a SIGTERM."""

    class Iterations(list):
        asked = ()

    done = Iterations()
    after_train_iter = SaveOnTerminationHook.after_train_iter

    def recorded(self, runner, *args, **kwargs):
        done.append(runner.iter)
        if runner.iter in done.asked:
            os.kill(os.getpid(), signal.SIGTERM)
        after_train_iter(self, runner, *args, **kwargs)

    monkeypatch.setattr(SaveOnTerminationHook, 'after_train_iter', recorded)
    return done


def counters(path):
    """All counters of a checkpoint."""
    checkpoint = load(str(path))
    return dict(
        epoch=checkpoint['meta']['epoch'],
        iter=checkpoint['meta']['iter'],
        ema=int(checkpoint['ema_state_dict']['steps']),
        optimizer={int(state['step']) for state in checkpoint['optimizer']['state'].values()},
        lr=[group['lr'] for group in checkpoint['optimizer']['param_groups']],
        schedulers=[
            (scheduler['last_step'], scheduler['_global_step'])
            for scheduler in checkpoint['param_schedulers']
        ],
        tensors={name: tensor.shape for name, tensor in checkpoint['state_dict'].items()},
    )


def test_a_terminated_run_resumes_where_it_stopped(
    kd_config, options, tmp_path, distilled, iterations
):
    # Twice in the first epoch, and at the end of the last one that distils.
    iterations.asked = 0, 1, 5
    for _ in iterations.asked:
        with pytest.raises(SystemExit) as ended:
            train(kd_config, work_dir=str(tmp_path), resume='auto', cfg_options=options)
        assert ended.value.code == 143
        assert newest_checkpoint(str(tmp_path)) == str(tmp_path / 'terminated.pth')
    train(kd_config, work_dir=str(tmp_path), resume='auto', cfg_options=options)

    assert iterations == list(range(3 * ITERATIONS))
    assert counters(tmp_path / 'epoch_3.pth') == counters(distilled / 'epoch_3.pth')


def test_a_terminated_validation_is_repeated_after_resuming(
    kd_config, options, tmp_path, distilled, monkeypatch
):
    """A cluster waits half a minute before SIGKILL; a validation may take longer."""
    validated = []
    after_val_iter = SaveOnTerminationHook.after_val_iter

    def recorded(self, runner, *args, **kwargs):
        validated.append(runner.epoch)
        if len(validated) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        after_val_iter(self, runner, *args, **kwargs)

    monkeypatch.setattr(SaveOnTerminationHook, 'after_val_iter', recorded)
    options.update(val_interval=2, val_interval_stage2=1)
    options['train_cfg.val_begin'] = 2
    with pytest.raises(SystemExit) as ended:
        train(kd_config, work_dir=str(tmp_path), cfg_options=options)
    assert ended.value.code == 143
    # Trained and averaged weights are not swapped.
    saved, regular = (load(str(tmp_path / name)) for name in ('terminated.pth', 'epoch_2.pth'))
    for part in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(saved[part][name], regular[part][name]) for name in regular[part])
    assert counters(tmp_path / 'terminated.pth') == counters(tmp_path / 'epoch_2.pth')

    train(kd_config, work_dir=str(tmp_path), resume='auto', cfg_options=options)
    assert validated == [2, *3 * [2], *3 * [3]]
    assert counters(tmp_path / 'epoch_3.pth') == counters(distilled / 'epoch_3.pth')


@pytest.mark.parametrize('asked, trained', [((), 2 + 2), ((0,), 1 + 2 + 2 + 2)])
def test_a_run_resumes_with_another_batch_size(
    kd_config, options, tmp_path, distilled, iterations, asked, trained
):
    """An epoch then has another number of iterations, as with another number of GPUs."""
    resume = str(distilled / 'epoch_1.pth')
    if asked:
        # After four of twelve images.
        iterations.asked = asked
        with pytest.raises(SystemExit):
            train(kd_config, work_dir=str(tmp_path), cfg_options=options)
        resume = 'auto'
    options.update(train_batch_size_per_gpu=6)
    train(kd_config, work_dir=str(tmp_path), resume=resume, cfg_options=options)
    assert len(iterations) == trained


def test_a_resumed_epoch_reads_only_its_remaining_batches():
    whole = range(10)
    rest = SkipFirstSamples(whole, 4)
    assert list(rest) == [4, 5, 6, 7, 8, 9]
    # Schedulers and loops use the dataloader's full length.
    assert len(rest) == 10


def test_resuming_without_a_checkpoint_starts_from_scratch(kd_config, options, tmp_path):
    def own(*_):
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        options.update(max_epochs=1, num_epochs_stage2=0)
        runner = train(kd_config, work_dir=str(tmp_path), resume='auto', cfg_options=options)
        assert runner.iter == ITERATIONS
        # The signal handler of the calling program is restored.
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize('kept', [0, 100, 0.5, 0.999])
def test_a_truncated_checkpoint_is_skipped(distilled, tmp_path, kept, capfd):
    for epoch in (1, 2):
        data = (distilled / f'epoch_{epoch}.pth').read_bytes()
        path = tmp_path / f'epoch_{epoch}.pth'
        path.write_bytes(
            data if epoch == 1 else data[: int(kept if kept > 1 else kept * len(data))]
        )
        os.utime(path, (epoch, epoch))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    assert newest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_1.pth')
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(ValueError, match=r'none of the checkpoints.*epoch_2\.pth, epoch_1\.pth'):
        newest_checkpoint(str(tmp_path))


def test_the_newest_checkpoint_is_found_without_last_checkpoint_and_in_a_moved_folder(tmp_path):
    assert newest_checkpoint(str(tmp_path)) is None
    state = dict(state_dict=dict(w=torch.ones(1)), optimizer={}, meta=dict(iter=1))
    for age, name in enumerate(('epoch_10.pth', 'epoch_9.pth', 'weights.pth')):
        torch.save(state if 'epoch' in name else dict(w=torch.ones(1)), tmp_path / name)
        os.utime(tmp_path / name, (100 - age, 100 - age))
    assert newest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_10.pth')
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_9.pth')
    assert newest_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_9.pth')


def test_the_newest_checkpoint_is_found_where_the_checkpoint_hook_saves(tmp_path):
    """CheckpointHook(out_dir=...) notes it in the work dir and saves elsewhere."""
    work_dir, out_dir = tmp_path / 'run', tmp_path / 'out/run'
    for folder in (work_dir, out_dir):
        folder.mkdir(parents=True)
    state = dict(state_dict=dict(w=torch.ones(1)), optimizer={}, meta=dict(iter=1))
    torch.save(state, out_dir / 'epoch_1.pth')
    (out_dir / 'epoch_2.pth').write_bytes(b'cut off')
    (work_dir / 'last_checkpoint').write_text(str(out_dir / 'epoch_2.pth'))
    assert newest_checkpoint(str(work_dir)) == str(out_dir / 'epoch_1.pth')
    # A copy of a work dir uses its own.
    torch.save(state, work_dir / 'epoch_2.pth')
    assert newest_checkpoint(str(work_dir)) == str(work_dir / 'epoch_2.pth')


class _Pictures(list):
    def get_data_info(self, index):
        return dict(width=64, height=64)


def test_a_run_with_a_batch_sampler_resumes_inside_its_epoch(monkeypatch):
    """Torch then has no batch size; MMDetection's configs group images by their shape."""
    pictures = _Pictures(range(12))
    batches = AspectRatioBatchSampler(DefaultSampler(pictures, shuffle=False), batch_size=4)
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop.dataloader = DataLoader(pictures, batch_sampler=batches)
    runner = SimpleNamespace(train_loop=loop, train_dataloader=loop.dataloader, _resume=True)
    runner.epoch, runner.iter, runner.logger = 0, 1, logging.getLogger()
    hook, saved = SaveOnTerminationHook(), []
    hook.after_load_checkpoint(runner, dict(meta=dict(samples_of_epoch=4)))
    hook.before_train_epoch(runner)
    assert [batch.tolist() for batch in loop.dataloader] == [[4, 5, 6, 7], [8, 9, 10, 11]]
    monkeypatch.setattr(hook, '_agreed', lambda at_interval: True)
    monkeypatch.setattr(hook, '_save_and_exit', lambda runner, **meta: saved.append(meta))
    hook.after_train_iter(runner, 0)
    assert saved == [dict(epoch=0, iter=2, samples_of_epoch=8)]
