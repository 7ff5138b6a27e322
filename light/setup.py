"""``pip install ./light``: the same package without torch and pyiqa, for those who only score.

It has the name of the full one, so that pip replaces either by the other, and a version such as ``0.4.0+light``.
"""

import os
import runpy
from pathlib import Path

os.chdir(Path(__file__).parents[1])
runpy.run_path("setup.py", run_name="light")
