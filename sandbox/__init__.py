"""An embedded stack for demo and tests: Valkey, SeaweedFS and a stand-in ComfyUI."""
