"""Starting and leaving: what happens around the jobs of a worker."""
