"""`python -m dockscale.cli` is `dockscale`."""

import sys

from dockscale.cli import main

sys.exit(main())
