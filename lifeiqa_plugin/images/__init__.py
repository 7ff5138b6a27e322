"""Image files to tensors, and synthetic distortions of them; needs neither pyiqa nor pandas."""
