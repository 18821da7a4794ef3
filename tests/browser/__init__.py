"""The console and the client in a real Chromium."""
