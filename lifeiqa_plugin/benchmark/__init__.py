"""``lifeiqa benchmark``: how well metrics of pyiqa correlate with people, and what they cost, side by side.

In the order of the data: ``metrics``, ``datasets`` and ``photos`` say what is compared; ``scores`` computes and keeps a
score for each image; ``accuracy`` says in one ``tidy`` frame what they are worth; ``protocol``, ``timing``, ``speed``
and ``memory`` measure cost; ``tables`` spreads it all, and ``report``, ``page`` and ``figures`` write it; ``run`` is
the whole, and ``command`` starts it.
"""
