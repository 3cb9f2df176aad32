"""How far it scales, and what it costs: `python -m bench scale`."""
