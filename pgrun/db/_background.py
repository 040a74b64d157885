"""The thread that no user code can block: the listener and the heartbeats live on its event loop."""

from pgrun._threads import LoopThread

background = LoopThread("pgrun-background")
