"""``lifeiqa report``: one page for a folder of photos, to sort, cull and compare them."""
