"""Works with crowds of clients, each a module with a TITLE, a TEXT that says what is compared, and `measure(stage)`."""
