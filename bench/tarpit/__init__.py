"""The tarpit, shown: a server whose workers all wait answers nobody, and what parking does instead."""
