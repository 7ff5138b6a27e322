"""Which images of a dataset nearly equal each other."""

import numpy as np
from PIL import Image, ImageFilter

from lifeiqa_plugin.images.near_duplicates import fingerprint, group_near_duplicates


def test_near_duplicates_are_grouped_in_the_order_of_their_first():
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 256, (6, 6), dtype=np.uint8)).resize((90, 90))
        for _ in range(3)
    ]
    softer = [picture.filter(ImageFilter.GaussianBlur(3)) for picture in pictures]
    flat = Image.new("L", (90, 90), 7)
    order = [flat, pictures[1], pictures[0], softer[1], flat, pictures[2], softer[0]]
    prints = np.stack([fingerprint(picture) for picture in order])
    assert group_near_duplicates(prints) == [None, 0, 1, 0, None, None, 1]


def test_neighbours_of_neighbours_are_one_group():
    angles = np.deg2rad([0, 10, 20, 90])  # cos 10 degrees is above the limit, cos 20 is below
    prints = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert group_near_duplicates(prints[[2, 0, 1, 3]]) == [0, 0, 0, None]
    assert group_near_duplicates(prints[:0]) == []
