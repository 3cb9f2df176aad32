"""The soak: a fleet that is hurt all the time, and an account of every job afterwards."""
