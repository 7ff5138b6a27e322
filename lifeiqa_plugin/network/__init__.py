"""The network: image -> score. Start with ``lifeiqa.py``; nothing here imports another room."""
