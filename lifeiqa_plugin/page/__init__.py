"""Self-contained HTML pages: one skeleton, one style and one set of charts for everything that draws a page."""

from lifeiqa_plugin.page.document import embed, small_copy

__all__ = ["embed", "small_copy"]
