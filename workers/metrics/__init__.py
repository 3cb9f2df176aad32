"""What a worker measures, for Prometheus: counted as it happens, or read when it is scraped."""
