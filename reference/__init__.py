"""The reference, made from the code that it describes: `python -m reference` writes it."""
