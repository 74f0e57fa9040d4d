"""SLURM: scripts for its ``sbatch``, and questions to its queue."""
