"""The driver: options, pipeline, progress, reports."""
