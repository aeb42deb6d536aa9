"""What servers of these tests answer."""

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 0\r\n\r\n"


def error(status: int, body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Error\r\n%sContent-Length: %d\r\n\r\n%s" % (status, extra, len(body), body)


def answering(*answers: bytes):
    """Answers the requests of a connection in turn, then closes it."""

    def behave(connection, server):
        for answer in answers:
            if not server.read_request(connection):
                return
            connection.sendall(answer)

    return behave
