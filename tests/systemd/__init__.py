"""The units, the install script, the kernel settings, and what a node tells the service manager."""
