"""``lifeiqa benchmark``: how well metrics of pyiqa agree with people, and what they cost, side by side.

In the order of the data: ``metrics`` and ``sets`` say what is compared, ``scores`` computes and keeps a score for each
image, ``agreement`` holds the statistics and ``accuracy`` their tables, ``speed`` measures, ``report`` writes tables
and ``page`` one HTML page; ``run`` is the command.
"""
