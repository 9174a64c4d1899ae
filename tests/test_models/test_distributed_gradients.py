"""Several processes compute the same updates from a batch as one process."""

import pytest
import torch
from helpers import in_processes
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from rtm_kd.registry import MODELS
from rtm_kd.utils import load_config

IMAGES = 6  # per batch, over all processes
# Two updates of two batches each. Before the last batch the teacher is detached.
BATCHES, ACCUMULATED, LAST_DISTILLED = 4, 2, 2


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def model(kd_config, options):
    cfg = load_config(kd_config, options).model
    cfg.data_preprocessor = dict(type='mmengine.BaseDataPreprocessor')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmyolo'):
        model = MODELS.build(cfg)
    # Predicted boxes as large as the true ones: RTMDet divides its losses by their overlap, which
    # is clamped to at least one in the mean over the processes.
    for branch in model.student.bbox_head.head_module.rtm_reg:
        torch.nn.init.constant_(branch.bias, 2)
    return model.train()


def batches(own):
    """Batches of the given images. The last images have no boxes."""
    dice = torch.Generator().manual_seed(1)
    for _ in range(BATCHES):
        inputs = torch.randn(IMAGES, 3, 64, 64, generator=dice)
        corners, sizes = torch.rand(2, IMAGES, 5, 2, generator=dice)
        boxes = torch.cat([40 * corners, 40 * corners + 16 + 24 * sizes], dim=2)
        rows = [
            [index, box % 2, *boxes[image, box].tolist()]
            for index, image in enumerate(range(IMAGES)[own])
            for box in range(max(0, 5 - 2 * image))
        ]
        samples = dict(
            bboxes_labels=torch.tensor(rows).view(-1, 6),
            img_metas=[dict(batch_input_shape=(64, 64))] * len(inputs[own]),
        )
        yield dict(inputs=inputs[own], data_samples=samples)


def learn(model, own):
    """Return the weights after each update."""
    detector = model.module if is_model_wrapper(model) else model
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    wrapper = OptimWrapper(optimizer, accumulative_counts=ACCUMULATED)
    wrapper.initialize_count_status(model, 0, BATCHES)
    weights = []
    for index, batch in enumerate(batches(own)):
        model.train_step(batch, wrapper)
        if index == LAST_DISTILLED:
            detector.distillation_stopped = True
            model = type(model)(detector) if is_model_wrapper(model) else model
        if (index + 1) % ACCUMULATED == 0:
            weights.append({n: p.detach().clone() for n, p in detector.named_parameters()})
    return weights


def own_images(rank, count):
    return slice(rank * IMAGES // count, (rank + 1) * IMAGES // count)


def learn_together(rank, count, model, everywhere, folder):
    init_dist('pytorch')
    # As Runner.wrap_model with sync_bn='torch', or a config with norm_cfg.type='SyncBN'.
    if everywhere:
        model = convert_sync_batchnorm(model)
    else:
        model.architecture = convert_sync_batchnorm(model.architecture)
    model = MMDistributedDataParallel(model, broadcast_buffers=False)
    torch.save(learn(model, own_images(rank, count)), folder / f'{rank}.pth')


def let_each_process_normalise_its_own(distiller, count):
    """Compute PKD's norms over the images of each process separately."""
    of_images = distiller.compute_distill_losses

    def compute_distill_losses(*records_and_size):
        records, size = records_and_size[:2], records_and_size[2:]
        parts = []
        for rank in range(count):
            own = own_images(rank, count)
            parts.append(
                of_images(
                    *({n: [f[own] for f in r] for n, r in side.items()} for side in records), *size
                )
            )
        return {name: sum(part[name] for part in parts) / count for name in parts[0]}

    distiller.compute_distill_losses = compute_distill_losses


@pytest.mark.skipif(torch.cuda.is_available(), reason='gloo is for machines without a GPU')
@pytest.mark.parametrize('count, everywhere', [(2, True), (3, False)])
def test_a_distributed_step_equals_one_on_a_single_process(model, count, everywhere, tmp_path):
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    in_processes(count, learn_together, count, model, everywhere, tmp_path)
    together = [torch.load(tmp_path / f'{rank}.pth') for rank in range(count)]
    let_each_process_normalise_its_own(model.distiller, count)
    alone = learn(model, slice(None))

    for weights in together[1:]:
        for mine, first in zip(weights, together[0]):
            assert all(torch.equal(mine[name], first[name]) for name in first)
    for mine, expected in zip(together[0], alone):
        steps = [
            torch.cat([(after[name] - before[name]).flatten() for name in before])
            for after in (mine, expected)
        ]
        assert (steps[0] - steps[1]).norm() < 1e-5 * steps[1].norm()
        before = expected
