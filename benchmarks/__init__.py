"""What is fast, what is not, and against what: `make bench`."""
