"""What a worker logs: of which job, in which form, and a job's story in a few lines."""
