"""What `/object_info` says of a node's inputs, and which values fit them: values, no I/O."""
