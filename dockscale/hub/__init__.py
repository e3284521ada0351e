"""The RPC hub: programs that connect to dockscale and call each other through it."""
