"""The reference, made from the code that it describes: `python -m docs.reference` writes it."""
