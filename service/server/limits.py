"""What a connection may take of the server; who needs longer or more is told so and closed."""

from typing import Final

HEADER_SECONDS: Final = 10.0  # from a connection's first moment, or a request's first byte, to its header's end
HEADER_BYTES: Final = 64 * 2**10
IDLE_SECONDS: Final = 15  # that a connection is kept open between two requests
BODY_IDLE_SECONDS: Final = 10.0  # without a byte of a body that is on its way
BODY_SECONDS: Final = 120.0  # for a whole body
DRAIN_SECONDS: Final = 5.0  # that the rest of a body too large is still read, so that its sender reads the answer
SEND_IDLE_SECONDS: Final = 30.0  # without the other side reading any of its answer
SESSION_BYTES: Final = 4 * 2**10  # of a body that signs a browser in
STRANGERS_BYTES: Final = 64 * 2**10  # of a body that is read before it is known whose it is
IN_MEMORY_BYTES: Final = 2**20  # of one body; what is more waits in a temporary file
HELD_BYTES: Final = 2**30  # of all bodies that are on their way
PICTURES_SECONDS: Final = 60.0  # that a whole request waits for one of the threads that decode and draw pictures
AGAIN_SECONDS: Final = 5  # after which who was refused for want of room may ask again
CONNECTIONS: Final = 2000  # at once
CHUNK_BYTES: Final = 256 * 2**10  # of an answer, sent at once
