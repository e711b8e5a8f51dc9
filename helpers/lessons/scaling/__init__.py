"""Notebook 13: replicas under Ray, parallelism computed, the launch commands of several GPUs."""
