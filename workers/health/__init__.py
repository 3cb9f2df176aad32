"""Whether a worker lives and can work, and the HTTP server that tells."""
