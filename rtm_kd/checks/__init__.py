"""What is checked before a run: config, annotations, images, pipelines."""
