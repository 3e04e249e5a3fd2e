"""Trials on Slurm and Grid Engine: arrays of tasks, how they go there, and how they come back."""
