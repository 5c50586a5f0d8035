"""The observation log on SQLite, MySQL, MariaDB and PostgreSQL."""
