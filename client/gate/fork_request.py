"""What the site's SuperExec and the process that gates are forked from say to each other: a gate's arguments, and an answer."""

LONGEST = 64 * 1024  # bytes of a request: arguments as JSON
TAKEN = b"t"  # a gate was forked
LEFT = b"l"  # the launcher is to start it: none can be forked, or not of the code that is installed now
