"""What a training run sees and does, around pyiqa's loop."""
