"""Images: from files to sRGB pixels, and synthetic distortions of them; needs neither pyiqa nor pandas."""
