"""The wire: how requests are read and how messages and answers are written. Pure encodings: no I/O, no clock."""
