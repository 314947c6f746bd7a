"""What Bellwire's speed is, side by side with python-socketio, in one run on this machine: ``make bench``."""
