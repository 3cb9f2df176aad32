"""What arrives from the broker, whoever sent it: no message may end the worker."""
