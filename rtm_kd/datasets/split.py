"""A validation split of a dataset that has none."""

import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from rtm_kd.utils.errors import UsageError

# Roboflow's copies of one photograph: name_jpg.rf.<hash>.jpg
_ROBOFLOW = re.compile(r'\.rf\.[0-9a-zA-Z]+(?=\.\w+$)')


def split_coco(
    content: dict[str, Any], image_folder: Path, fraction: float, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide COCO annotations into those to train on and those to evaluate on.

    Copies of an image stay on one side: files of the same bytes, and what Roboflow made of
    one photograph. Classes are divided as the images are, and the rarest first, so that a
    class with two images that are no copies is on both sides. After Sechidis et al., "On the
    Stratification of Multi-label Data", ECML PKDD 2011.

    Args:
        content (dict): What a COCO file holds.
        image_folder (Path): What its file names are relative to.
        fraction (float): Share of the images to evaluate on, between 0 and 1.
        seed (int): The same one gives the same split, whatever the order of the images.

    Returns:
        tuple[dict, dict]: The two parts, with all the categories each.

    Raises:
        ValueError: If the fraction is not between 0 and 1, or there are no two images that
            are no copies.
    """
    if not 0 < fraction < 1:
        raise UsageError(f'--val-fraction must be between 0 and 1, got {fraction:g}')
    groups = group_copies(content['images'], image_folder)
    if len(groups) < 2:
        raise UsageError(
            f'--val-fraction can divide nothing: the {len(content["images"])} images are '
            f'{len(groups)} without their copies'
        )
    chosen = _stratify(groups, _classes_of_images(content), fraction, seed)
    others = {image['id'] for image in content['images']} - chosen
    return _part(content, others), _part(content, chosen)


def group_copies(images: list[dict[str, Any]], image_folder: Path) -> list[list[int]]:
    """Return the ids of the images, those of one photograph together.

    In an order that follows from the names of the files alone. An image without a file
    stands for itself.
    """
    images = sorted(images, key=lambda image: image['file_name'])
    by_size = defaultdict(list)
    for image in images:
        path = Path(image_folder, image['file_name'])
        if path.is_file():
            by_size[path.stat().st_size].append((image['id'], path))
    # Only files of one size can be copies: the others need not be read.
    bytes_of = {
        image_id: hashlib.blake2b(path.read_bytes()).digest()
        for alike in by_size.values()
        if len(alike) > 1
        for image_id, path in alike
    }
    above: dict[Any, Any] = {}

    def top(key: Any) -> Any:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    groups = defaultdict(list)
    for image in images:
        for key in (('name', _ROBOFLOW.sub('', image['file_name'])), bytes_of.get(image['id'])):
            if key is not None:
                above[top(key)] = top(image['id'])
    for image in images:
        groups[top(image['id'])].append(image['id'])
    return list(groups.values())


def _classes_of_images(content: dict[str, Any]) -> dict[int, set[int]]:
    classes = defaultdict(set)
    for annotation in content['annotations']:
        classes[annotation['image_id']].add(annotation['category_id'])
    return classes


def _stratify(
    groups: list[list[int]], classes: dict[int, set[int]], fraction: float, seed: int
) -> set[int]:
    """Return the ids of the images to evaluate on."""
    order = np.random.default_rng(seed).permutation(len(groups))
    waiting = [groups[i] for i in order]
    counts = [_count(group, classes) for group in waiting]
    shares = (1 - fraction, fraction)
    totals = {key: sum(count[key] for count in counts) for key in set().union(*counts)}
    # The share of a class's images that a side still wants, 1 at first, and how many it has.
    wanted = [dict.fromkeys(totals, 1.0), dict.fromkeys(totals, 1.0)]
    has = [dict.fromkeys(totals, 0), dict.fromkeys(totals, 0)]
    sides: dict[int, int] = {}
    while len(sides) < len(waiting):
        left = [i for i in range(len(waiting)) if i not in sides]
        rarity = Counter(key for i in left for key in counts[i])
        # Images without boxes have the key of all images alone.
        key = min(
            rarity, key=lambda key: (key is None, rarity[key], isinstance(key, str), key or 0)
        )
        for i in [i for i in left if key in counts[i]]:
            # A rare class is on both sides before anything else counts.
            lacking = [side for side in (0, 1) if not has[side][key]]
            needs = [sum(wanted[side][counted] for counted in counts[i]) for side in (0, 1)]
            side = lacking[0] if lacking else needs.index(max(needs))
            sides[i] = side
            for counted, number in counts[i].items():
                wanted[side][counted] -= number / totals[counted] / shares[side]
                has[side][counted] += number
    if not any(sides.values()):
        sides[len(waiting) - 1] = 1  # every class is in one group alone
    return {image_id for i, side in sides.items() if side for image_id in waiting[i]}


def _count(group: list[int], classes: dict[int, set[int]]) -> Counter:
    """Images of a group by class, and under None all of them."""
    count = Counter({None: len(group)})
    for image_id in group:
        count.update(classes.get(image_id, ()))
    return count


def _part(content: dict[str, Any], image_ids: set[int]) -> dict[str, Any]:
    return {
        **content,
        'images': [image for image in content['images'] if image['id'] in image_ids],
        'annotations': [a for a in content['annotations'] if a['image_id'] in image_ids],
    }
