"""What all tests need."""

import signal

# Tests that a shell runs in its background ignore Ctrl-C, and so would the jobs that they interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
