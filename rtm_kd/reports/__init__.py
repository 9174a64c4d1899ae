"""HTML pages on trainings: curves, tables and pictures."""
