"""What runs in and around Triton Inference Server."""
