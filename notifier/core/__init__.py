"""The rules of the service, without I/O, clock or event loop: everything here is plain values in, plain values out."""
