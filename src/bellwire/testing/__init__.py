"""What tests of an application use: a client in the same process, a virtual clock, a pytest plugin."""
