"""The HTTP face: each handler only translates between a request and the service."""
