"""A module whose import never ends; a worker gets it by ``--import support.hanging_import``."""

import time

print("the import hangs", flush=True)
time.sleep(3600)
