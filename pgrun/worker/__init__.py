"""Who executes runs: claims them, carries out attempts, writes how they ended, and takes over from workers that died."""

from pgrun.worker.worker import Worker

__all__ = ["Worker"]
