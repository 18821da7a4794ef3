"""Access: which grant a caller has, and when it ends."""
