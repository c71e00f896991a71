"""What `Runtime.segment` takes, and how each kind becomes pixels."""
