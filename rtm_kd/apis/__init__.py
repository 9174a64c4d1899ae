from .test import test
from .train import train

__all__ = ['test', 'train']
