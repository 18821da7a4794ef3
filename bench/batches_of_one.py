"""`notifier serve` with group commit off: each publish is a transaction of its own."""

import sys

from notifier.cli import main
from notifier.postgres import writer

writer.MAX_BATCH = 1
sys.exit(main(["serve"]))
