"""Images: from files to sRGB pixels; needs neither torch, pyiqa nor pandas."""
