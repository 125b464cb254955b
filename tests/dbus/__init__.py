"""The system bus, tested against a real dbus-daemon and mock services."""

from piod.dbus import load_library

load_library()  # as the daemon does: without GLib, wherever the tests go on to import it
