"""Which server a job is for: what each one can do, what each one has loaded."""
