"""The model in PyTorch, one module a stage; nothing here opens a file."""
