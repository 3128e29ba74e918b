"""`python -m nfnet_eqx` is `nfnet-eqx`."""

import sys

from nfnet_eqx.cli import main

sys.exit(main())
