"""Settings for tests that wait for leases and polls."""

from pgrun import Settings

FAST = Settings(lease=2.0, poll_interval=1.0, poll_interval_without_listen=0.1, unknown_delay=0.5, quota_delay=0.5)
