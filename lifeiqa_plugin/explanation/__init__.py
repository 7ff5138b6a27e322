"""Why an image got its score: what is wrong, where, and what the network looked at.

``explain.py`` asks, ``dense.py`` and ``attribution.py`` answer, ``words.py`` and ``figure.py`` show.
"""
