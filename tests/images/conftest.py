"""How long the fuzzed tests of this folder run: ``LIFEIQA_FUZZ=20000 pytest tests/images`` tries so many files each."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "images",
    max_examples=int(os.environ.get("LIFEIQA_FUZZ", "60")),
    derandomize="LIFEIQA_FUZZ" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("images")
