"""The pictures of the figures, one module for each: functions of the tables and statistics that a notebook made."""
