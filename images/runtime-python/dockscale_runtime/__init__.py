"""What carries a Python program that is an app: it is loaded, connected, and its failures are told in its own lines."""
