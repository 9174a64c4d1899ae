"""Looking into trainings: what their logs tell, and what their detectors see and find."""
