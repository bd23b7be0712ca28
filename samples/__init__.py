"""Programs to read and to copy: one idea each, and the census, which is a whole job."""
