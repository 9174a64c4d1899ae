"""Checks before a run: config, annotations, images, pipelines, checkpoints to resume."""
