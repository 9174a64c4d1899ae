"""Annotations of other formats as COCO's, which training and evaluation read."""

from .base import Annotations
from .coco import CocoAnnotations
from .coco_writer import CocoWriter, Converted
from .detect import convert_dataset, open_annotations
from .voc import VocAnnotations
from .yolo import YoloAnnotations

__all__ = [
    'Annotations',
    'CocoAnnotations',
    'CocoWriter',
    'Converted',
    'VocAnnotations',
    'YoloAnnotations',
    'convert_dataset',
    'open_annotations',
]
