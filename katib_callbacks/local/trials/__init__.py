"""A trial's processes: from its template to their end."""
