"""From a client to an instance and back."""
