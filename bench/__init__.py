"""What the numbers in README and docs/scaling.md come from: `python -m bench`."""
