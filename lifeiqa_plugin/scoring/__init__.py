"""Images in, scores out."""
