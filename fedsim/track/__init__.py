"""Trackers: other programs that show a run's metrics.

In: a run folder, round by round. Out: TensorBoard's event files, an MLflow run, a W&B run. Each is
written by a process of its own, which can fail or hang without stopping the run.
"""
