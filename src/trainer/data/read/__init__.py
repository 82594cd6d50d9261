"""Files become rows: opened, recognized, checked, and known by their digest."""
