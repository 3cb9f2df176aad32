"""A stand-in ComfyUI server: it behaves as the real one, with no model and no GPU.

It speaks as recorded servers speak (`tests/fixtures/wire`); `tests/contract` holds it to that.
"""
