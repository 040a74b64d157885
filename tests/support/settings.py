"""Settings and a policy for tests that wait for leases, polls and retries."""

from pgrun import RetryPolicy, Settings

FAST = Settings(lease=2.0, poll_interval=1.0, poll_interval_without_listen=0.1, unknown_delay=0.5, quota_delay=0.5)

SOON = RetryPolicy(base_delay=0.01, max_attempts=3)
