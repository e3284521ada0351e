"""What dockscale thinks with: no waiting, no clock, no I/O, no logging. Time and chance are arguments."""
