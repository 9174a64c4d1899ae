"""A validation split of a dataset that has none."""

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from rtm_kd.utils.errors import UsageError

# Roboflow's copies of one photograph: name_jpg.rf.<hash>.jpg
_ROBOFLOW = re.compile(r'\.rf\.[0-9a-zA-Z]+(?=\.\w+$)')


def split_coco(
    content: dict[str, Any], image_folder: Path, fraction: float, seed: int = 0
) -> list[dict[str, Any]]:
    """Divide COCO annotations into those to train on and to evaluate on, both with all categories.

    Copies of an image stay on one side: files with the same bytes, and Roboflow's variants of
    one photograph. Every class is divided in the same proportion, the rarest first, so that a
    class with two images that are not copies is on both sides. After Sechidis et al., "On the
    Stratification of Multi-label Data", ECML PKDD 2011.

    Args:
        image_folder (Path): The folder that its file names are relative to.
        fraction (float): Share of the images to evaluate on, between 0 and 1.
        seed (int): The same seed gives the same split, whatever the order of the images.

    Raises:
        ValueError: If the fraction is not between 0 and 1, the seed is below 0, or all images
            are copies of one.
    """
    if not 0 < fraction < 1:
        raise UsageError(f'--val-fraction must be between 0 and 1, got {fraction:g}')
    if seed < 0:
        raise UsageError(f'--seed must be 0 or above, got {seed}')
    images = sorted(content['images'], key=lambda image: image['file_name'])
    groups = _group_copies(images, image_folder)
    if len(groups) < 2:
        raise UsageError(
            f'--val-fraction has nothing to divide: the {len(images)} images are '
            f'{len(groups)} without their copies; add images, or name others with --val-ann'
        )
    classes = defaultdict(set)
    for annotation in content['annotations']:
        classes[annotation['image_id']].add(annotation['category_id'])
    held_out = _stratify(groups, classes, fraction, seed)
    return [
        {
            **content,
            'images': [i for i in content['images'] if (i['id'] in held_out) == evaluated],
            'annotations': [
                a for a in content['annotations'] if (a['image_id'] in held_out) == evaluated
            ],
        }
        for evaluated in (False, True)
    ]


def _group_copies(images: list[dict[str, Any]], image_folder: Path) -> list[set]:
    """Return the ids of the images, with copies in one group; a missing file has no copies."""
    paths = {image['id']: Path(image_folder, image['file_name']) for image in images}
    by_size = defaultdict(list)
    for image_id, path in paths.items():
        if path.is_file():
            by_size[path.stat().st_size].append(image_id)
    groups, first = DisjointSet(paths), {}
    for image in images:
        name = _ROBOFLOW.sub('', image['file_name'])
        groups.merge(image['id'], first.setdefault(name, image['id']))
    for alike in by_size.values():
        # Only files of the same size can be copies; the others need not be read.
        for image_id in alike if len(alike) > 1 else ():
            content = hashlib.blake2b(paths[image_id].read_bytes()).digest()
            groups.merge(image_id, first.setdefault(content, image_id))
    return groups.subsets()


def _stratify(groups: list[set], classes: dict[Any, set], fraction: float, seed: int) -> set:
    """Return the ids of the images to evaluate on."""
    order = np.random.default_rng(seed).permutation(len(groups))
    groups = [groups[i] for i in order]
    # Number of images of a group by class; None counts all of them.
    counts = [
        Counter([None] * len(group) + [c for image in group for c in classes.get(image, ())])
        for group in groups
    ]
    totals = Counter(key for count in counts for key in count.elements())
    shares = (1 - fraction, fraction)
    # The share of a class's images that a side still wants, 1 at first, and how many it has.
    wanted = [dict.fromkeys(totals, 1.0) for _ in shares]
    has = [Counter(), Counter()]
    left, held_out = set(range(len(groups))), []
    while left:
        rarity = Counter(key for i in left for key in counts[i])
        # By class, and the images without boxes, which only None counts, at the end.
        key = min(
            rarity, key=lambda key: (key is None, rarity[key], isinstance(key, str), key or 0)
        )
        for i in sorted(i for i in left if key in counts[i]):
            # A rare class gets onto both sides before anything else counts.
            lacking = [side for side in (0, 1) if not has[side][key]]
            needs = [sum(wanted[side][counted] for counted in counts[i]) for side in (0, 1)]
            side = lacking[0] if lacking else needs.index(max(needs))
            left.remove(i)
            held_out += [i] if side else []
            has[side].update(counts[i])
            for counted, number in counts[i].items():
                wanted[side][counted] -= number / totals[counted] / shares[side]
    # Where each class is in one group alone, the last one.
    return set().union(*(groups[i] for i in held_out or [len(groups) - 1]))
