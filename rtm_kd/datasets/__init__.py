"""Conversion of a user's data to COCO, and the drawn dataset."""

from .drawn_dataset import DrawnDataset

__all__ = ['DrawnDataset']
