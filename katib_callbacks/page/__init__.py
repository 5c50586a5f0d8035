"""The page: what runs on this machine, and what a DB manager holds, seen in a browser."""
