"""``lifeiqa benchmark``: how well metrics of pyiqa correlate with people, and what they cost, side by side.

In the order of the data: ``option_files``, ``metrics``, ``datasets`` and ``photos`` say what is compared;
``contamination`` says what was trained on; ``scores`` computes and keeps a score for each image; ``protocol``,
``speed`` and ``memory`` measure cost; ``accuracy`` says what scores are worth; ``tables`` makes every table once, and
``report``, ``page`` and ``figures`` write them; ``run`` is the whole, and ``command`` starts it. ``table`` is what a
table is and its formats, also for ``leaderboard_command``, which puts training runs side by side.
"""
