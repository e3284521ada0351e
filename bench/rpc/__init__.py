"""dockscale's hub next to a Hypha server, with the same unmodified clients on both."""
