"""``python -m lifeiqa_plugin`` is the command ``lifeiqa``."""

import sys

from lifeiqa_plugin.cli import main

sys.exit(main())
