"""What a ComfyUI server does: the same tests against the stand-in and against real servers."""
