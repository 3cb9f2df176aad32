"""The composition root: the one place where clients are made and put together."""
