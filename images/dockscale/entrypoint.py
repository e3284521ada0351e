"""Starts dockscale as an ordinary user who may use the Docker socket.

Which group owns the socket differs from machine to machine. So the container starts as root, takes that
group and nothing else from root, and becomes user 10001 before dockscale itself begins.
"""

import os
import sys

USER = 10001

if os.getuid() == 0:  # not when started with 'user:' or '--user'; then all is as told
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    groups = [os.stat(socket).st_gid] if os.path.exists(socket) else []
    os.setgroups(groups)
    os.setgid(USER)
    os.setuid(USER)
    os.environ["HOME"] = "/tmp"  # noqa: S108  # root's own is closed to us now

command = sys.argv[1:] or ["serve"]
os.execvp("dockscale", ["dockscale", *command])  # noqa: S606, S607  # to become it is the point
