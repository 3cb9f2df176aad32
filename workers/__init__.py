"""The worker process: takes jobs from the queue and runs them on one ComfyUI server."""
