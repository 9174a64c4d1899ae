"""Annotations of other formats as COCO's, which training and evaluation read."""

from .base import CocoWriter
from .detect import convert_dataset, open_annotations
from .voc import VocAnnotations
from .yolo import YoloAnnotations

__all__ = ['CocoWriter', 'VocAnnotations', 'YoloAnnotations', 'convert_dataset', 'open_annotations']
