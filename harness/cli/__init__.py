"""The command ``mote``: a module a command."""
