"""The network as one file for other runtimes: images at their working size in, scores out."""
