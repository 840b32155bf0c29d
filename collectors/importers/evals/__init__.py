"""Results that evaluation harnesses write, read into a run's folder: a file a format."""
