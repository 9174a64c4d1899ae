import numpy as np
import torch
from mmengine.structures import InstanceData

from rtm_kd.reports.detections import best_score_thr, ground_truth, match, num_disagreements


def annotated(*objects):
    return ground_truth(
        dict(
            instances=[
                dict(bbox=bbox, bbox_label=label, ignore_flag=ignored)
                for bbox, label, ignored in objects
            ]
        )
    )


def detected(*found):
    bboxes, labels, scores = zip(*found) if found else ((), (), ())
    return InstanceData(
        bboxes=torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores, dtype=torch.float32),
    )


LEFT, RIGHT, BELOW = [0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]


def test_an_object_is_found_once_and_by_its_class():
    truth = annotated((LEFT, 0, 0), (RIGHT, 1, 0), (BELOW, 1, 0))
    found = match(
        detected(
            ([0, 0, 10, 7], 0, 0.9),
            ([0, 4, 10, 10], 0, 0.8),  # the same object again
            (RIGHT, 0, 0.7),  # another class
            ([50, 50, 60, 60], 1, 0.01),  # below the score threshold
        ),
        truth,
    )
    assert found.partners.tolist() == [0, -1, -1]
    assert num_disagreements(found, truth) == (2, 2)


def test_an_overlap_of_one_half_or_more_is_a_match():
    truth = annotated((LEFT, 0, 0))
    for height, found in ((5, True), (4.9, False), (6, True)):
        detections = match(detected(([0, 0, 10, height], 0, 0.9)), truth)
        assert (detections.partners.tolist() == [0]) == found
    # For a crowd, half of the detection has to be inside it.
    crowd = annotated(([0, 0, 60, 40], 0, 1))
    for left, counted in ((54, 0), (55, 0), (56, 1)):
        found = match(detected(([left, 0, left + 10, 10], 0, 0.9)), crowd)
        assert num_disagreements(found, crowd) == (0, counted)


def test_only_the_best_of_overlapping_boxes_counts():
    truth = annotated((LEFT, 1, 0))
    found = match(detected((LEFT, 0, 0.6), (LEFT, 1, 0.8), ([0, 0, 10, 9], 2, 0.5)), truth)
    assert found.labels.tolist() == [1]
    assert num_disagreements(found, truth) == (0, 0)


def test_detections_inside_a_crowd_do_not_count():
    truth = annotated((LEFT, 0, 0), ([20, 0, 60, 40], 0, 1))
    found = match(detected((LEFT, 0, 0.9), ([25, 5, 30, 10], 0, 0.8)), truth)
    assert num_disagreements(found, truth) == (0, 0)


def test_the_threshold_is_where_f1_is_highest():
    truth = annotated((LEFT, 0, 0), (RIGHT, 0, 0))
    found = match(detected((LEFT, 0, 0.9), (RIGHT, 0, 0.4), (BELOW, 0, 0.3)), truth)
    threshold = best_score_thr([found], [truth])
    assert np.isclose(threshold, 0.4)
    assert num_disagreements(found.from_score(threshold), truth) == (0, 0)


def test_images_without_objects_or_detections_have_no_error():
    for truth in (annotated(), annotated((LEFT, 0, 0))):
        found = match(detected(), truth)
        assert num_disagreements(found, truth) == (len(truth.bboxes), 0)
        assert best_score_thr([found], [truth]) == 0.3
    found = match(detected((LEFT, 0, 0.9)), annotated())
    assert num_disagreements(found, annotated()) == (0, 1)
