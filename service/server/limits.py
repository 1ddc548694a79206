"""How long a connection may take and how much it may send; beyond that it gets an error and is closed."""

from typing import Final

HEADER_SECONDS: Final = 10.0  # from the opening of a connection, or a request's first byte, to the end of its header
HEADER_BYTES: Final = 64 * 2**10
IDLE_SECONDS: Final = 15  # for which a connection is kept open between two requests
BODY_IDLE_SECONDS: Final = 10.0  # without a byte of a body that has begun
BODY_SECONDS: Final = 120.0  # for a whole body
DRAIN_SECONDS: Final = 5.0  # for which the rest of a refused body is still read, so that the client gets the answer
SEND_IDLE_SECONDS: Final = 30.0  # without the client reading any of its answer
SESSION_BYTES: Final = 4 * 2**10  # of the body of a sign-in
STRANGERS_BYTES: Final = 64 * 2**10  # of a body that is read before the client's key is checked
IN_MEMORY_BYTES: Final = 2**20  # of one body in memory; the rest goes to a temporary file
HELD_BYTES: Final = 2**30  # of all bodies that are being received
PICTURES_SECONDS: Final = 60.0  # for which a request waits for one of the threads that decode and draw pictures
AGAIN_SECONDS: Final = 5  # after which a client that was refused for lack of space may retry
CONNECTIONS: Final = 2000  # at once
CHUNK_BYTES: Final = 256 * 2**10  # of an answer, sent at once
