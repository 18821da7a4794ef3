"""`notifier serve` with as many workers as the argument says."""

import os
import sys

from notifier.cli import main

os.environ["WEB_CONCURRENCY"] = sys.argv[1]
sys.exit(main(["serve"]))
