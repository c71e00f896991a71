"""What becomes of a result: pictures, colours, JSON, recordings."""
