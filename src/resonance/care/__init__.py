"""Looking after a database: is it sound, and how is it built anew."""
